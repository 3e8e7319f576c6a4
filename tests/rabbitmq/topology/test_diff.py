"""`lightbus topology` shows how the objects at RabbitMQ differ."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rabbitmq.topology_support import WANTED, TopologyCommand, declare
from rabbitmq_support import QUEUE, Broker, MakeBus, Topology


async def test_missing_objects_are_shown_and_not_created(
    command: TopologyCommand, topology: Topology
) -> None:
    states = await command.states(code=1)

    assert {name: one["state"] for name, one in states.items()} == {
        "exchange lightbus:auth": "missing",
        "exchange lightbus::unrouted": "missing",
        "exchange lightbus::delay": "missing",
        "exchange lightbus::return": "missing",
        "queue lightbus::unrouted": "missing",
        "queue lightbus:shop:dead": "missing",
        f"queue {QUEUE}": "missing",
        f"bindings {QUEUE}": "unknown",
        "queue lightbus::delay:1000": "missing",
        "policies all queues": "unknown",
        "listeners shop": "unknown",
    }
    assert topology.queues() == {}
    assert topology.exchanges() == {}


async def test_missing_objects_are_created(
    command: TopologyCommand, topology: Topology, make_bus: MakeBus
) -> None:
    said = await command("--migrate")

    assert "missing" not in said
    made = topology.queues(), topology.exchanges(), topology.bindings()
    await declare(make_bus)
    assert made == (topology.queues(), topology.exchanges(), topology.bindings())


async def test_matching_objects_are_shown_as_ok(
    command: TopologyCommand, make_bus: MakeBus
) -> None:
    await declare(make_bus)

    shown = await command()

    assert re.search(rf"queue +{QUEUE} +ok", shown)
    assert " ok " in shown
    assert "--migrate binds user_created, and unbinds user_deleted, user_updated." in shown
    states = await command.states(code=0)
    assert {one["state"] for one in states.values()} == {"ok", "unknown"}


@pytest.mark.parametrize(
    ("arguments", "argument", "wanted", "actual"),
    [
        ({}, "x-dead-letter-exchange", "", "none"),
        ({**WANTED, "x-delivery-limit": 3}, "x-delivery-limit", "20", "3"),
        ({**WANTED, "x-dead-letter-exchange": "other"}, "x-dead-letter-exchange", "", "other"),
    ],
    ids=["classic", "delivery limit", "dead letters"],
)
async def test_a_different_queue_is_shown_with_the_first_difference(
    *,
    command: TopologyCommand,
    make_bus: MakeBus,
    broker: Broker,
    arguments: dict[str, Any],
    argument: str,
    wanted: str,
    actual: str,
) -> None:
    await declare(make_bus)
    await broker.channel.queue_delete(QUEUE)
    await broker.channel.queue_declare(QUEUE, durable=True, arguments=arguments)

    states = await command.states(code=1)

    found = states.pop(f"queue {QUEUE}")
    assert (found["state"], found["argument"], found["wanted"], found["actual"]) == (
        "different",
        argument,
        wanted,
        actual,
    )
    assert {one["state"] for one in states.values()} == {"ok", "unknown"}
    empty = "''"
    assert f"{argument} is {actual}, expected {wanted or empty}." in await command(code=1)


async def test_a_different_exchange_is_shown_with_the_remedy_and_not_migrated(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    await broker.channel.exchange_delete("lightbus:auth")
    await broker.channel.exchange_declare(
        exchange="lightbus:auth", exchange_type="direct", durable=True
    )
    await broker.channel.queue_delete(QUEUE)
    await broker.channel.queue_declare(QUEUE, durable=True)
    before = topology.queues()

    found = (await command.states(code=1))["exchange lightbus:auth"]

    assert (found["argument"], found["wanted"], found["actual"]) == ("type", "topic", "direct")
    assert "Stop the programs that fire through it, delete it" in found["note"]
    said = await command("--migrate", code=1)
    assert "Exchange 'lightbus:auth' has other settings. It cannot be changed." in said
    assert topology.queues() == before


async def test_a_topology_without_differences_is_ok(tmp_path: Path) -> None:
    command = TopologyCommand(tmp_path / "shop", "")
    config: dict[str, Any] = {"apis": {"default": {"event_transport": {"memory": {}}}}}
    (tmp_path / "shop" / "lightbus.json").write_text(json.dumps(config))

    assert "Nothing to compare" in await command()
    assert await command("--format", "json") == "[]\n"
    assert "Nothing to compare" in await command("--migrate")


async def test_wrong_usage_ends_with_2(command: TopologyCommand) -> None:
    assert "not of the form API.EVENT" in await command("--unwanted", "auth", code=2)
    assert "was not found" in await command("--bus", "no_such_module", code=2)
