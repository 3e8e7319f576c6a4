"""`lightbus topology --migrate` changes the objects at RabbitMQ to match, and loses no event."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiormq.abc import DeliveredMessage

from lightbus import Bus, Worker
from lightbus.exceptions import TransportRefused
from lightbus_rabbitmq import RabbitMQTransport
from rabbitmq.topology_support import (
    BINDINGS,
    BUS,
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
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Seen, Topology
from service import Service

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("quick_migrations")]


async def test_a_worker_handles_migrated_events(make_bus: MakeBus, broker: Broker) -> None:
    await declare_old_queue(make_bus, broker, {})
    await fire(make_bus, "ada", "bob")
    await migrate(make_bus)

    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        assert await seen.wait_for(2) == ["ada", "bob"]


async def test_events_that_are_fired_during_a_migration_are_neither_refused_nor_lost(
    make_bus: MakeBus, broker: Broker
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    bus = make_bus()
    fired: set[str] = set()
    done = asyncio.Event()

    async def keep_firing() -> None:
        while not done.is_set():
            name = str(len(fired))
            await bus.auth.user_created.fire_async(username=name, email="e")
            fired.add(name)
            await asyncio.sleep(0.01)

    firing = asyncio.create_task(keep_firing())
    await migrate(make_bus)
    done.set()
    await firing

    count = await broker.count(QUEUE)
    kept = [username_of(message) for message in await get_events(broker, count)]
    assert set(kept) == fired
    assert len(fired) > 100


async def test_a_queue_in_use_is_not_migrated(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    await broker.channel.basic_consume(QUEUE, lambda _: asyncio.sleep(0))
    await fire(make_bus, "ada")

    said = await command("--migrate", code=1)

    assert f"Queue '{QUEUE}' is in use. Stop the workers of its service" in said
    assert topology.queues()[QUEUE] == OLD
    assert TEMPORARY not in topology.queues()


async def test_a_stopping_worker_that_holds_an_event_blocks_a_migration(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    await fire(make_bus, "ada")
    held = asyncio.Event()

    async def hold(_: DeliveredMessage) -> None:
        held.set()

    worker = await broker.channel.connection.channel()
    started = await worker.basic_consume(QUEUE, hold)
    await held.wait()
    await worker.basic_cancel(str(started.consumer_tag))

    assert "is in use" in await command("--migrate", code=1)

    await worker.close()
    await command("--migrate")
    assert [username_of(message) for message in await get_events(broker, 1)] == ["ada"]


async def test_two_migrations_at_once_lose_no_event(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare_old_queue(make_bus, broker, OLD)
    names = [f"{number:04}" for number in range(1500)]
    await fire(make_bus, *names)

    migrations = migrate(make_bus), migrate(make_bus)
    results = await asyncio.gather(*migrations, return_exceptions=True)

    # The second is refused, or waits for the first and has nothing to do.
    assert None in results
    refused = [result for result in results if result is not None]
    assert all(isinstance(result, TransportRefused) for result in refused)
    assert all("Another migration is running" in str(result) for result in refused)
    assert topology.queues()[QUEUE] == WANTED
    assert [username_of(message) for message in await get_events(broker, 1500)] == names


async def test_an_interrupted_migration_is_shown_and_completed(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    # As if a migration was killed after it deleted the old queue.
    await declare_old_queue(make_bus, broker, OLD)
    await broker.channel.queue_declare(
        TEMPORARY, durable=True, arguments={**QUORUM, "x-delivery-limit": 1_000_000_000}
    )
    for exchange, routing_key, _ in BINDINGS:
        await broker.channel.queue_bind(TEMPORARY, exchange, routing_key)
    await broker.channel.queue_delete(QUEUE)
    await fire(make_bus, "ada")

    shown = (await command.states(code=1))[f"queue {TEMPORARY}"]
    assert shown["state"] == "unfinished"
    assert "The queue holds 1 events. `lightbus topology --migrate` continues." in shown["note"]

    # A worker that starts now declares the queue, and gets the events that are fired from now on.
    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await fire(make_bus, "bob")
        assert await seen.wait_for(1) == ["bob"]
        await command("--migrate")
        # Events in both queues are delivered twice.
        assert sorted(await seen.wait_for(3)) == ["ada", "bob", "bob"]
    assert TEMPORARY not in topology.queues()


async def test_the_dead_letter_queue_is_not_migrated_while_workers_may_use_it(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    await broker.channel.queue_delete(DEAD)
    await broker.channel.queue_declare(DEAD, durable=True)
    await broker.channel.basic_consume(QUEUE, lambda _: asyncio.sleep(0))

    assert f"Queue '{QUEUE}' is in use" in await command("--migrate", code=1)
    assert topology.queues()[DEAD] == {}


async def declare_for_both_events(make_bus: MakeBus) -> Bus:
    """Declare the listener's queue for two events; return the bus."""
    bus = make_bus(acknowledgement_timeout=1)
    bus.client.listen_for_events(
        [("auth", "user_created"), ("auth", "user_deleted")],
        lambda username: None,
        listener_name="welcome",
    )
    async with Worker(bus):
        pass
    return bus


async def test_events_without_a_listener_are_dead_lettered_until_a_migration_unbinds_them(
    *,
    command: TopologyCommand,
    tmp_path: Path,
    rabbitmq_url: str,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
) -> None:
    older = await declare_for_both_events(make_bus)
    bus = BUS.replace("lambda username: None", "lambda username: print(username)")
    newer = Service(
        tmp_path / "worker", bus, url=rabbitmq_url, name="shop", acknowledgement_timeout=1
    )

    with newer:
        for name in ("eve", "fay"):
            await make_bus().auth.user_deleted.fire_async(username=name)
        await fire(make_bus, "ada")
        await asyncio.to_thread(newer.wait_for_output, "ada")
        await broker.wait_for_count(DEAD, 2)
        # Each was delivered once, and the worker continues.
        assert len(newer.logged("Event could not be handled")) == 2

        said = await command("--migrate")

        assert "unbinds user_deleted, user_updated" in said
        assert queue_bindings(topology) == BINDINGS
        await make_bus().auth.user_deleted.fire_async(username="gus")
        await fire(make_bus, "bob")
        await asyncio.to_thread(newer.wait_for_output, "bob")
        assert newer.stop() == 0
    assert await broker.count(DEAD) == 2
    transport = await older.client.transports.open("auth")
    assert isinstance(transport, RabbitMQTransport)
    letters = [letter async for letter in transport.dead_letters("shop")]
    assert [letter.message.kwargs["username"] for letter in letters] == ["eve", "fay"]
    assert letters[0].failure.error_type == "lightbus.exceptions.NotListenedFor"
    assert "discard it: `lightbus dead-letters`" in letters[0].failure.error_message


async def test_events_of_an_unregistered_api_are_unbound_by_name(
    tmp_path: Path, rabbitmq_url: str, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    await broker.channel.queue_bind(QUEUE, "lightbus:auth", "user_renamed")
    command = TopologyCommand(tmp_path / "shop", rabbitmq_url)
    bus = (tmp_path / "shop" / "bus.py").read_text()
    unregistered = bus.replace("bus.client.register_api(AuthApi())", "")
    (tmp_path / "shop" / "bus.py").write_text(unregistered)

    await command("--migrate")
    assert ("lightbus:auth", "user_renamed", QUEUE) in queue_bindings(topology)

    await command("--migrate", "--unwanted", "auth.user_renamed")
    assert queue_bindings(topology) == BINDINGS
