"""The RabbitMQ of the tests is real. They start one of their own, unless they are given one."""

from __future__ import annotations

import gc
import os
import secrets
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from rabbitmq_node import RabbitMQNode, running_node
from rabbitmq_server import AMQP_URL, RabbitMQServer

# Other processes may slow this one down at any moment. Each test has a time limit of its own.
hypothesis.settings.register_profile("lightbus", deadline=None)
hypothesis.settings.load_profile("lightbus")

# A shell without job control ignores SIGINT in what it starts in the background, and the processes
# that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

VERSION = pytest.StashKey[str]()
NOT_RUN = "needs a RabbitMQ node of its own"

# A test that uses one of them, directly or through another fixture, needs RabbitMQ.
_BROKER_FIXTURES = {"own_rabbitmq", "rabbitmq_node", "rabbitmq_server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a broker."""
    for item in items:
        if isinstance(item, pytest.Function) and _BROKER_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.broker)


def pytest_collection_finish() -> None:
    """Exclude the loaded modules from garbage collections, which many tests start."""
    gc.freeze()


@pytest.fixture(scope="session")
def own_rabbitmq() -> None:
    """Asked for by what starts nodes: it is not run where the caller chose a broker for the tests,
    which they may not stop, kill or fill up.
    """
    if os.environ.get(AMQP_URL):
        pytest.skip(f"{NOT_RUN}, and {AMQP_URL} names another")


@pytest.fixture(scope="session")
def rabbitmq_node(own_rabbitmq: None) -> Iterator[RabbitMQNode]:
    """The node that the whole run shares. A test that stops it or fills it up wants its own."""
    with running_node() as node:
        yield node


@pytest.fixture(scope="session")
def rabbitmq_server(request: pytest.FixtureRequest) -> RabbitMQServer:
    """The broker that the whole run shares: a node, or what `LIGHTBUS_TEST_AMQP_URL` names."""
    given = RabbitMQServer.given_by(os.environ)
    server: RabbitMQServer = given or request.getfixturevalue("rabbitmq_node")
    request.config.stash[VERSION] = server.version
    request.getfixturevalue("record_testsuite_property")("rabbitmq_version", server.version)
    return server


@pytest.fixture
def rabbitmq_vhost(rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """A virtual host of the test's own, which goes with all that is in it when the test ends."""
    vhost = f"test-{secrets.token_hex(4)}"
    rabbitmq_server.create_vhost(vhost)
    yield vhost
    rabbitmq_server.delete_vhost(vhost)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str) -> str:
    """The AMQP URL of the test's own virtual host."""
    return rabbitmq_server.url(rabbitmq_vhost)


@pytest.fixture
def private_rabbitmq_node(own_rabbitmq: None) -> Iterator[RabbitMQNode]:
    """A node that the test has to itself, to stop, kill and start again. It costs seconds."""
    with running_node() as node:
        yield node


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say on which RabbitMQ the tests ran, and how many were not run on it."""
    if version := config.stash.get(VERSION, None):
        terminalreporter.write_line(f"on RabbitMQ {version}")
    if not_run := [
        r for r in terminalreporter.stats.get("skipped", []) if NOT_RUN in r.longreprtext
    ]:
        terminalreporter.write_line(f"NOT RUN: {len(not_run)} tests, each {NOT_RUN}", red=True)
