"""`lightbus topology --migrate` recreates queues with other settings, and loses no event."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lightbus.exceptions import TransportError
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from rabbitmq.topology_support import (
    BINDINGS,
    OLD,
    QUORUM,
    TEMPORARY,
    WANTED,
    TopologyCommand,
    declare,
    declare_old_queue,
    fire,
    get_events,
    migrate,
    queue_bindings,
    username_of,
)
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Topology, headers_of

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("quick_migrations")]


@pytest.mark.parametrize("old", [{}, OLD], ids=["classic", "quorum"])
async def test_a_recreated_queue_has_the_new_arguments_and_a_thousand_events_in_order(
    command: TopologyCommand,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
    old: dict[str, Any],
) -> None:
    await declare_old_queue(make_bus, broker, old)
    names = [f"{number:04}" for number in range(1000)]
    await fire(make_bus, *names)

    said = await command("--migrate")

    assert "2,000 moved, done" in said
    assert topology.queues()[QUEUE] == WANTED
    assert TEMPORARY not in topology.queues()
    assert queue_bindings(topology) == BINDINGS
    taken = await get_events(broker, 1000)
    assert [username_of(message) for message in taken] == names
    assert await broker.count(QUEUE) == 0


async def test_a_migrated_event_keeps_its_properties_and_attempt(
    make_bus: MakeBus, broker: Broker
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    fired = await make_bus().auth.user_created.fire_async(username="ada", email="e")
    await broker.put(
        "lightbus::return",
        f"1000.{QUEUE}",
        b'{"username": "bob"}',
        message_id="returned",
        message_type="auth.user_created",
        correlation_id="c",
        headers={"traceparent": "t", "lightbus-attempt": 4, "CC": ["elsewhere"]},
    )
    # A worker that is lost with both events: they are redelivered, and counted.
    lost = await broker.channel.connection.channel()
    for _ in range(2):
        await lost.basic_get(QUEUE)
    await lost.close()

    await migrate(make_bus)

    first, second = await get_events(broker, 2)
    properties = first.header.properties
    assert (properties.message_id, properties.message_type) == (fired.id, "auth.user_created")
    assert headers_of(first)["lightbus-attempt"] == 2
    assert headers_of(first)["cloudEvents:id"] == fired.id
    assert headers_of(first).get("x-delivery-count", 0) == 0
    properties = second.header.properties
    assert (properties.message_id, properties.correlation_id) == ("returned", "c")
    assert properties.message_type == "auth.user_created"
    assert properties.delivery_mode == 2
    headers = headers_of(second)
    # RabbitMQ 4.3 omits a count of 0.
    assert headers.pop("x-delivery-count", 0) == 0
    assert headers == {"traceparent": "t", "lightbus-attempt": 5}


async def test_events_that_arrive_while_their_queue_is_deleted_are_reported(
    make_bus: MakeBus, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    delete = MigrationLock.delete

    async def late(lock: MigrationLock, queue: str) -> int:
        await broker.put("", queue, b"{}")
        await broker.wait_for_count(queue, 1)
        return await delete(lock, queue)

    monkeypatch.setattr(MigrationLock, "delete", late)
    with pytest.raises(TransportError, match=f"1 events were sent directly to queue '{QUEUE}'"):
        await migrate(make_bus)

    monkeypatch.undo()
    await migrate(make_bus)


async def test_dead_letters_keep_their_headers_when_their_queue_is_recreated(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    wanted = topology.queues()[DEAD]
    await broker.channel.queue_delete(DEAD)
    await broker.channel.queue_declare(
        DEAD, durable=True, arguments={**QUORUM, "x-delivery-limit": 20}
    )
    # The broker dead-letters an event that is redelivered too often, and adds its queue.
    await broker.channel.queue_declare(
        "old", durable=True, arguments={**WANTED, "x-delivery-limit": 0}
    )
    await broker.put("", "old", b'{"username": "bob"}', message_id="b", message_type="auth.x")
    got = await broker.channel.basic_get("old")
    await broker.channel.basic_reject(int(got.delivery_tag or 0), requeue=True)
    await broker.wait_for_count(DEAD, 1)
    story = headers_of(await broker.get(DEAD))["x-death"]
    headers = {"x-death": story, "lightbus-error-type": "KeyError"}
    await broker.put("", DEAD, b"{}", message_id="a", headers=headers)

    await migrate(make_bus)

    assert topology.queues()[DEAD] == wanted
    headers = headers_of(await broker.get(DEAD))
    assert headers["lightbus-error-type"] == "KeyError"
    assert headers["x-death"][0]["queue"] == "old"


async def test_delayed_events_return_when_their_delay_queue_is_recreated(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    wanted = topology.queues()["lightbus::delay:1000"]
    await broker.channel.queue_delete("lightbus::delay:1000")
    # A queue that would never end the delay
    await broker.channel.queue_declare("lightbus::delay:1000", durable=True, arguments=QUORUM)
    await broker.channel.queue_bind("lightbus::delay:1000", "lightbus::delay", "1000.#")
    await broker.put(
        "lightbus::delay", f"1000.{QUEUE}", b'{"username": "ada"}', message_id="a", delivery_mode=2
    )

    await migrate(make_bus)

    assert topology.queues()["lightbus::delay:1000"] == wanted
    await broker.wait_for_count(QUEUE, 1)
    assert username_of(await broker.get(QUEUE)) == "ada"


async def test_unrouted_events_keep_their_routing_key_when_their_queue_is_recreated(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    await broker.channel.queue_delete("lightbus::unrouted")
    await broker.channel.queue_declare("lightbus::unrouted", durable=True)
    await broker.channel.queue_bind("lightbus::unrouted", "lightbus::unrouted", "")
    await broker.put("lightbus::return", "1000.lightbus:shop:gone:auth", b"{}", message_id="a")
    await broker.wait_for_count("lightbus::unrouted", 1)

    await migrate(make_bus)

    assert topology.queues()["lightbus::unrouted"]["x-queue-type"] == "quorum"
    parked = await broker.get("lightbus::unrouted")
    assert (parked.routing_key, parked.header.properties.message_id) == (
        "1000.lightbus:shop:gone:auth",
        "a",
    )


async def test_a_cancelled_migration_moves_the_events_in_flight_and_can_continue(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    names = [f"{number:04}" for number in range(1000)]
    await fire(make_bus, *names)
    half = asyncio.Event()

    migrating = asyncio.create_task(
        migrate(make_bus, lambda now: half.set() if now.moved > 500 else None)
    )
    await half.wait()
    migrating.cancel()
    await asyncio.wait({migrating})
    assert migrating.cancelled()
    await migrate(make_bus)

    taken = await get_events(broker, 1000)
    assert [username_of(message) for message in taken] == names
    assert {headers_of(message)["lightbus-attempt"] for message in taken} == {1}
