"""The RabbitMQ of the tests: real, private and started by them. It is never skipped or mocked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from rabbitmq_node import RabbitMQNode, running_node


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[RabbitMQNode]:
    """The node that the whole run shares. A test that stops it or fills it up wants its own."""
    with running_node() as node:
        yield node


@pytest.fixture
def rabbitmq_vhost(rabbitmq_node: RabbitMQNode) -> Iterator[str]:
    """A virtual host of the test's own, which goes with all that is in it when the test ends."""
    vhost = f"test-{secrets.token_hex(4)}"
    rabbitmq_node.create_vhost(vhost)
    yield vhost
    rabbitmq_node.delete_vhost(vhost)


@pytest.fixture
def rabbitmq_url(rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str) -> str:
    """The AMQP URL of the test's own virtual host."""
    return rabbitmq_node.url(rabbitmq_vhost)


@pytest.fixture
def private_rabbitmq_node() -> Iterator[RabbitMQNode]:
    """A node that the test has to itself, to stop, kill and start again. It costs seconds."""
    with running_node() as node:
        yield node
