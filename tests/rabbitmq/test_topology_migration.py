"""`lightbus topology --migrate` on a real RabbitMQ: what differs is changed, and none is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiormq
import pytest
from aiormq.abc import DeliveredMessage

from lightbus import Bus, Worker, create
from lightbus.exceptions import TransportError, TransportRefused
from lightbus.operations.topology import topology_of
from lightbus.transport.records import MigrationProgress
from lightbus_rabbitmq import RabbitMQTransport
from lightbus_rabbitmq.topology import migration
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from rabbitmq.topology_support import (
    BUS,
    DEAD,
    QUEUE,
    QUORUM,
    WANTED,
    KilledMigrations,
    TopologyCommand,
    declare,
)
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import AuthApi, Broker, MakeBus, Seen, Topology, headers_of
from service import Service

pytestmark = pytest.mark.faults

OLD = {
    **QUORUM,
    "x-delivery-limit": 50,
    "x-dead-letter-exchange": "amq.fanout",
    "x-dead-letter-routing-key": "elsewhere",
}
TEMPORARY = f"{QUEUE}#migrating"
BINDINGS = {("lightbus:auth", "user_created", QUEUE), ("lightbus::return", f"*.{QUEUE}", QUEUE)}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is migrated in this process waits for no broker that could be killed."""
    monkeypatch.setattr(migration, "_SAVED_AFTER", 0.05)
    monkeypatch.setattr(migration, "_LOOKS", 3)


async def make_old(make_bus: MakeBus, broker: Broker, arguments: dict[str, Any]) -> None:
    """Have the listener's queue be one with other arguments, bound to more than is wanted."""
    await declare(make_bus)
    await broker.channel.queue_delete(QUEUE)
    await broker.channel.queue_declare(QUEUE, durable=True, arguments=arguments)
    for exchange, routing_key, _ in (*BINDINGS, ("lightbus:auth", "user_deleted", QUEUE)):
        await broker.channel.queue_bind(QUEUE, exchange, routing_key)


async def fire(make_bus: MakeBus, *names: str) -> None:
    """Fire an event for each name."""
    bus = make_bus()
    # What the first one makes, the others find, and keep their order.
    await bus.auth.user_created.fire_async(username=names[0], email="e")
    firing = [bus.auth.user_created.fire_async(username=name, email="e") for name in names[1:]]
    await asyncio.gather(*firing)


async def migrate(
    make_bus: MakeBus,
    on_progress: Callable[[MigrationProgress], None] = lambda _: None,
    **settings: Any,
) -> None:
    """Do what the command does, in this process."""
    bus = make_bus(acknowledgement_timeout=1, **settings)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with topology_of(bus.client) as known:
        await known.migrate(on_progress=on_progress)


async def take(broker: Broker, count: int) -> list[DeliveredMessage]:
    """Take events from the listener's queue."""
    return [await broker.get(QUEUE) for _ in range(count)]


def name_of(message: DeliveredMessage) -> str:
    """Return whose event it is."""
    return str(json.loads(message.body)["username"])


def queue_bindings(topology: Topology) -> set[tuple[str, str, str]]:
    """Return what leads to the listener's queue, and to its deputy."""
    return {binding for binding in topology.bindings() if binding[2].startswith(QUEUE)}


@pytest.mark.parametrize("old", [{}, OLD], ids=["classic", "quorum"])
async def test_a_queue_gets_its_new_arguments_and_keeps_a_thousand_events_in_order(
    command: TopologyCommand,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
    old: dict[str, Any],
) -> None:
    await make_old(make_bus, broker, old)
    names = [f"{number:04}" for number in range(1000)]
    await fire(make_bus, *names)

    said = await command("--migrate")

    assert "2,000 moved, done" in said
    assert topology.queues()[QUEUE] == WANTED
    assert TEMPORARY not in topology.queues()
    assert queue_bindings(topology) == BINDINGS
    taken = await take(broker, 1000)
    assert [name_of(message) for message in taken] == names
    assert await broker.count(QUEUE) == 0


async def test_an_event_keeps_its_properties_and_the_number_of_its_attempt(
    make_bus: MakeBus, broker: Broker
) -> None:
    await make_old(make_bus, broker, OLD)
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
    # A worker that is lost with both: they come back, and are counted.
    lost = await broker.channel.connection.channel()
    for _ in range(2):
        await lost.basic_get(QUEUE)
    await lost.close()

    await migrate(make_bus)

    first, second = await take(broker, 2)
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
    # RabbitMQ 4.3 leaves it out where it is 0.
    assert headers.pop("x-delivery-count", 0) == 0
    assert headers == {"traceparent": "t", "lightbus-attempt": 5}


async def test_a_worker_handles_what_was_migrated(make_bus: MakeBus, broker: Broker) -> None:
    await make_old(make_bus, broker, {})
    await fire(make_bus, "ada", "bob")
    await migrate(make_bus)

    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        assert await seen.wait_for(2) == ["ada", "bob"]


async def test_events_that_are_fired_meanwhile_are_neither_refused_nor_lost(
    make_bus: MakeBus, broker: Broker
) -> None:
    await make_old(make_bus, broker, OLD)
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
    kept = [name_of(message) for message in await take(broker, count)]
    assert set(kept) == fired
    assert len(fired) > 100


async def test_a_queue_whose_workers_run_is_left_alone(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(make_bus, broker, OLD)
    await broker.channel.basic_consume(QUEUE, lambda _: asyncio.sleep(0))
    await fire(make_bus, "ada")

    said = await command("--migrate", code=1)

    assert f"Queue '{QUEUE}' is in use. Stop the workers of its service" in said
    assert topology.queues()[QUEUE] == OLD
    assert TEMPORARY not in topology.queues()


async def test_a_worker_that_stops_and_still_holds_an_event_is_noticed(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(make_bus, broker, OLD)
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
    assert [name_of(message) for message in await take(broker, 1)] == ["ada"]


async def test_events_that_come_in_the_moment_of_deletion_are_told(
    make_bus: MakeBus, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_old(make_bus, broker, OLD)
    delete = MigrationLock.delete

    async def late(claim: MigrationLock, queue: str) -> int:
        await broker.put("", queue, b"{}")
        await broker.wait_for_count(queue, 1)
        return await delete(claim, queue)

    monkeypatch.setattr(MigrationLock, "delete", late)
    with pytest.raises(TransportError, match=f"1 events were put into queue '{QUEUE}' past its"):
        await migrate(make_bus)

    monkeypatch.undo()
    await migrate(make_bus)


async def test_a_migration_that_is_told_to_stop_lets_what_it_took_arrive_and_goes_on_later(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(make_bus, broker, OLD)
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

    taken = await take(broker, 1000)
    assert [name_of(message) for message in taken] == names
    assert {headers_of(message)["lightbus-attempt"] for message in taken} == {1}


async def test_two_migrations_at_once_do_no_harm(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(make_bus, broker, OLD)
    names = [f"{number:04}" for number in range(1500)]
    await fire(make_bus, *names)

    migrations = migrate(make_bus), migrate(make_bus)
    results = await asyncio.gather(*migrations, return_exceptions=True)

    # The second is refused, or waited until the first was done and found nothing to do.
    assert None in results
    refused = [result for result in results if result is not None]
    assert all(isinstance(result, TransportRefused) for result in refused)
    assert all("Another migration is running" in str(result) for result in refused)
    assert topology.queues()[QUEUE] == WANTED
    assert [name_of(message) for message in await take(broker, 1500)] == names


async def test_what_a_broken_off_migration_left_is_shown_and_brought_back(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    # As it is when a migration was killed after it had deleted the old queue.
    await make_old(make_bus, broker, OLD)
    await broker.channel.queue_declare(
        TEMPORARY, durable=True, arguments={**QUORUM, "x-delivery-limit": 1_000_000_000}
    )
    for exchange, routing_key, _ in BINDINGS:
        await broker.channel.queue_bind(TEMPORARY, exchange, routing_key)
    await broker.channel.queue_delete(QUEUE)
    await fire(make_bus, "ada")

    shown = (await command.states(code=1))[f"queue {TEMPORARY}"]
    assert shown["state"] == "unfinished"
    assert "1 events wait in it. `lightbus topology --migrate` goes on." in shown["note"]

    # A worker that starts now makes the queue, and gets what is fired from now on.
    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await fire(make_bus, "bob")
        assert await seen.wait_for(1) == ["bob"]
        await command("--migrate")
        # What both queues had comes twice.
        assert sorted(await seen.wait_for(3)) == ["ada", "bob", "bob"]
    assert TEMPORARY not in topology.queues()


async def test_dead_letters_keep_their_story_where_their_queue_is_made_anew(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    wanted = topology.queues()[DEAD]
    await broker.channel.queue_delete(DEAD)
    await broker.channel.queue_declare(
        DEAD, durable=True, arguments={**QUORUM, "x-delivery-limit": 20}
    )
    # The broker itself makes a dead letter of what was returned too often, and notes from where.
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


async def test_the_queue_of_the_dead_letters_is_left_alone_while_workers_may_use_it(
    command: TopologyCommand, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    await broker.channel.queue_delete(DEAD)
    await broker.channel.queue_declare(DEAD, durable=True)
    await broker.channel.basic_consume(QUEUE, lambda _: asyncio.sleep(0))

    assert f"Queue '{QUEUE}' is in use" in await command("--migrate", code=1)
    assert topology.queues()[DEAD] == {}


async def test_delayed_events_come_back_where_their_delay_queue_is_made_anew(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await declare(make_bus)
    wanted = topology.queues()["lightbus::delay:1000"]
    await broker.channel.queue_delete("lightbus::delay:1000")
    # One that would never give them back
    await broker.channel.queue_declare("lightbus::delay:1000", durable=True, arguments=QUORUM)
    await broker.channel.queue_bind("lightbus::delay:1000", "lightbus::delay", "1000.#")
    await broker.put(
        "lightbus::delay", f"1000.{QUEUE}", b'{"username": "ada"}', message_id="a", delivery_mode=2
    )

    await migrate(make_bus)

    assert topology.queues()["lightbus::delay:1000"] == wanted
    await broker.wait_for_count(QUEUE, 1)
    assert name_of(await broker.get(QUEUE)) == "ada"


async def test_parked_events_still_name_their_listener_where_their_queue_is_made_anew(
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


async def test_events_that_are_listened_for_no_more_are_parked_and_then_come_no_more(
    *,
    command: TopologyCommand,
    tmp_path: Path,
    rabbitmq_url: str,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
) -> None:
    older = make_bus(acknowledgement_timeout=1)
    older.client.listen_for_events(
        [("auth", "user_created"), ("auth", "user_deleted")],
        lambda username: None,
        listener_name="welcome",
    )
    async with Worker(older):
        pass
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
        # Each was looked at once, and the worker goes on.
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


async def test_events_of_an_api_that_is_not_registered_are_named_to_be_unbound(
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


@pytest.mark.timeout(240)
@pytest.mark.parametrize("old", [{}, OLD], ids=["classic", "quorum"])
async def test_a_migration_that_is_killed_again_and_again_loses_nothing(
    killed_migrations: KilledMigrations,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
    old: dict[str, Any],
) -> None:
    await make_old(make_bus, broker, old)
    fired = {f"{number}" for number in range(3)}
    await fire(make_bus, *fired)

    kills = 0
    while await killed_migrations.run(kills + 1):
        kills += 1
        # What is fired between two of them, while things stand as they do, must not be lost either.
        name = f"after {kills}"
        await fire(make_bus, name)
        fired.add(name)

    assert kills > 20
    await check_migrated(broker, topology, fired)


@pytest.mark.timeout(240)
async def test_a_migration_that_is_killed_after_any_of_its_steps_is_done_by_the_next(
    killed_migrations: KilledMigrations, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    steps = 0
    is_killed = True
    while is_killed:
        steps += 1
        await make_old(make_bus, broker, OLD)
        await fire(make_bus, "before 1", "before 2")

        is_killed = await killed_migrations.run(steps)
        await fire(make_bus, "after")
        await killed_migrations.run(-1)

        await check_migrated(broker, topology, {"before 1", "before 2", "after"})
    assert steps > 30


async def check_migrated(broker: Broker, topology: Topology, fired: set[str]) -> None:
    """Check that the queue is as it is wanted, with all that was fired, and take it."""
    assert topology.queues()[QUEUE] == WANTED
    assert TEMPORARY not in topology.queues()
    assert queue_bindings(topology) == BINDINGS
    kept = [name_of(message) for message in await take(broker, await broker.count(QUEUE))]
    assert set(kept) == fired


@pytest.mark.timeout(150)
async def test_a_broker_that_is_killed_meanwhile_ends_the_migration_and_loses_nothing(
    private_rabbitmq_node: RabbitMQNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # for here one is killed
    node = private_rabbitmq_node
    settings = {"url": node.url(), "operation_timeout": 5, "connect_timeout": 1}
    default = {"event_transport": {"rabbitmq": settings}, "acknowledgement_timeout": 1}

    def make_bus(**_: Any) -> Bus:
        bus = create({"apis": {"default": default}}, service_name="shop")
        bus.client.register_api(AuthApi)
        return bus

    connection = await aiormq.connect(node.url())
    await make_old(make_bus, Broker(await connection.channel()), OLD)
    names = [f"{number:04}" for number in range(1000)]
    await fire(make_bus, *names)
    half = asyncio.Event()

    migrating = asyncio.create_task(
        migrate(make_bus, lambda now: half.set() if now.moved > 500 else None)
    )
    await half.wait()
    await asyncio.to_thread(node.kill)
    with pytest.raises(TransportError):
        await migrating
    await asyncio.to_thread(node.start)
    await migrate(make_bus)

    connection = await aiormq.connect(node.url())
    broker = Broker(await connection.channel())
    taken = await take(broker, await broker.count(QUEUE))
    assert {name_of(message) for message in taken} == set(names)
    await connection.close()
