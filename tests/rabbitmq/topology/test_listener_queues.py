"""Queues whose listeners no longer exist, with the management API of RabbitMQ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Command
from lightbus import Worker
from lightbus_rabbitmq.settings import RabbitMQSettings
from rabbitmq.topology_support import declare
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import QUEUE, Broker, MakeBus, Topology

SERVICE = "import lightbus\nbus = lightbus.create(service_name='shop')\n"


@pytest.fixture
def folder(tmp_path: Path, rabbitmq_url: str, rabbitmq_server: RabbitMQServer) -> Path:
    """The folder of a service that has no listeners."""
    host, port = rabbitmq_server.management_host, rabbitmq_server.management_port
    settings = {"url": rabbitmq_url, "management_url": f"http://{host}:{port}"}
    default = {"event_transport": {"rabbitmq": settings}}
    (tmp_path / "lightbus.json").write_text(json.dumps({"apis": {"default": default}}))
    (tmp_path / "bus.py").write_text(SERVICE)
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `lightbus`; return its exit code, output and errors."""
    with Command(folder) as command:
        return command(*arguments)


async def test_the_management_api_shows_which_queues_no_listener_uses(
    make_bus: MakeBus, broker: Broker, folder: Path
) -> None:
    await declare(make_bus)
    await make_bus().auth.user_created.fire_async(username="ann", email="e")
    await broker.wait_for_count(QUEUE, 1)

    code, printed, said = run(folder, "topology", "--format", "json")

    assert code == 0, said
    (unused,) = [one for one in json.loads(printed) if one["state"] == "unused"]
    assert unused["name"] == "welcome on auth"
    assert unused["note"].startswith("Events in its queue: 1.")


async def test_without_the_management_api_it_is_unknown_which_queues_no_listener_uses(
    make_bus: MakeBus, folder: Path, rabbitmq_url: str, topology: Topology
) -> None:
    await declare(make_bus)
    default = {"event_transport": {"rabbitmq": {"url": rabbitmq_url}}}
    (folder / "lightbus.json").write_text(json.dumps({"apis": {"default": default}}))

    _, printed, _ = run(folder, "topology", "--format", "json")
    shown = {one["kind"]: one["state"] for one in json.loads(printed)}
    assert shown == {"listeners": "unknown", "policies": "unknown"}

    code, _, said = run(folder, "listeners", "remove", "welcome", "--yes")
    assert code == 1
    assert "--api" in said
    code, _, said = run(folder, "listeners", "remove", "welcome", "--api", "auth", "--yes")
    assert code == 0, said
    assert QUEUE not in topology.queues()


async def test_a_queue_that_a_worker_uses_is_not_removed(
    make_bus: MakeBus, folder: Path, topology: Topology
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with Worker(bus):
        code, _, said = run(folder, "listeners", "remove", "welcome", "--discard", "--yes")

    assert code == 1
    assert f"1 workers use queue '{QUEUE}'" in said
    assert QUEUE in topology.queues()


async def test_a_refusal_of_the_management_api_is_reported_without_the_password(
    folder: Path, rabbitmq_url: str, rabbitmq_server: RabbitMQServer
) -> None:
    host, port = rabbitmq_server.management_host, rabbitmq_server.management_port
    settings = {
        "url": rabbitmq_url,
        "management_url": f"http://guest:wr0ng-pass@{host}:{port}",
    }
    default = {"event_transport": {"rabbitmq": settings}}
    (folder / "lightbus.json").write_text(json.dumps({"apis": {"default": default}}))

    code, printed, said = run(folder, "topology")

    assert code == 1
    assert f"The RabbitMQ management API at http://{host}:{port}" in said
    assert "wr0ng" not in printed + said


@pytest.mark.parametrize(
    "url", ["amqp://u:hidden@host", "http://u:hidden/x@host", "host:15672", "http://u:hidden@h?a=b"]
)
def test_an_invalid_management_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="`management_url` is not of the form") as refused:
        RabbitMQSettings(url="amqp://host", management_url=url)

    assert "hidden" not in str(refused.value)


def test_the_repr_of_settings_does_not_contain_the_management_url() -> None:
    settings = RabbitMQSettings(url="amqp://host", management_url="http://u:hidden@host:15672")

    assert "hidden" not in f"{settings!r} {settings}"
