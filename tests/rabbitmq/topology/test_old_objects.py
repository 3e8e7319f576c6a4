"""`lightbus topology --migrate` replaces the objects of an earlier version."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lightbus import OnError, Worker
from lightbus.exceptions import TransportRefused
from lightbus.operations.topology import topology_of
from rabbitmq.topology_support import QUORUM, KilledMigrations, TopologyCommand, declare
from rabbitmq_support import QUEUE, Broker, MakeBus, Seen, Topology, headers_of

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("quick_migrations")]

OTHER = "lightbus:billing:invoice:auth"
NEW_EXCHANGES = {
    "lightbus:auth",
    "lightbus::delay",
    "lightbus::return",
    "lightbus::unrouted",
}
RETRY = {"first": 1.0, "longest": 2.0, "factor": 2.0}
WAITS = (800, 1000, 1600, 2400)


@pytest.fixture(autouse=True)
async def _listener(make_bus: MakeBus) -> None:
    """The listener's queue, among the objects of the new version."""
    await declare(make_bus)


async def make_old(broker: Broker, *waits: int, queues: tuple[str, ...] = (QUEUE,)) -> None:
    """Declare the objects under their old names."""
    channel = broker.channel
    await channel.exchange_declare(
        exchange="lightbus:unrouted", exchange_type="fanout", durable=True
    )
    await channel.queue_declare("lightbus:unrouted", durable=True, arguments=QUORUM)
    await channel.queue_bind("lightbus:unrouted", "lightbus:unrouted", "")
    await channel.exchange_declare(exchange="lightbus:delay", exchange_type="topic", durable=True)
    await channel.exchange_declare(
        exchange="lightbus:return",
        exchange_type="topic",
        durable=True,
        arguments={"alternate-exchange": "lightbus:unrouted"},
    )
    for queue in queues:
        await channel.queue_bind(queue, "lightbus:return", f"*.{queue}")
    for wait in waits:
        # Without a time to live, so that only a migration removes events.
        name = f"lightbus:delay:{wait}"
        await channel.queue_declare(name, durable=True, arguments=QUORUM)
        await channel.queue_bind(name, "lightbus:delay", f"{wait}.#")


async def delay(broker: Broker, wait: int, name: str, *, queue: str = QUEUE) -> None:
    """Delay an event for its third attempt under the old names."""
    await broker.put(
        "lightbus:delay",
        f"{wait}.{queue}",
        json.dumps({"username": name}).encode(),
        message_id=name,
        message_type="auth.user_created",
        headers={"lightbus-attempt": 3},
    )
    await broker.wait_for_count(f"lightbus:delay:{wait}", 1)


async def park(broker: Broker, name: str) -> None:
    """Send an event whose listener no longer exists."""
    await broker.put("lightbus:return", "1000.lightbus:shop:gone:auth", b"{}", message_id=name)
    await broker.wait_for_count("lightbus:unrouted", 1)


async def migrate(make_bus: MakeBus, service_name: str = "shop", **settings: Any) -> None:
    """Migrate in this process."""
    bus = make_bus(acknowledgement_timeout=1, service_name=service_name, **settings)
    listener_name = "welcome" if service_name == "shop" else "invoice"
    bus.auth.user_created.listen(
        lambda username: None, listener_name=listener_name, on_error=OnError.RETRY
    )
    async with topology_of(bus.client) as known:
        await known.migrate(on_progress=lambda _: None)


async def taken(broker: Broker, queue: str, count: int) -> dict[str, Any]:
    """Get events from a queue; return exchange, routing key and attempt of each, by event id."""
    found: dict[str, Any] = {}
    await broker.wait_for_count(queue, count)
    for _ in range(count):
        message = await broker.get(queue)
        found[str(message.header.properties.message_id)] = (
            message.exchange,
            message.routing_key,
            headers_of(message).get("lightbus-attempt"),
        )
    return found


def old_names(topology: Topology) -> set[str]:
    """Return the objects with an old name."""
    names = {*topology.queues(), *topology.exchanges()}
    return {name for name in names if name.startswith(("lightbus:delay", "lightbus:return"))} | (
        names & {"lightbus:unrouted"}
    )


async def test_events_under_the_old_names_are_moved_and_the_old_objects_deleted(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(broker, *WAITS)
    for wait in WAITS:
        await delay(broker, wait, str(wait))
    await park(broker, "parked")

    await migrate(make_bus, retry=RETRY)

    assert old_names(topology) == set()
    assert set(topology.exchanges()) == NEW_EXCHANGES
    assert not [binding for binding in topology.bindings() if binding[0] == "lightbus:return"]
    assert await taken(broker, QUEUE, len(WAITS)) == {
        str(wait): ("lightbus::return", f"{wait}.{QUEUE}", 3) for wait in WAITS
    }
    parked = await taken(broker, "lightbus::unrouted", 1)
    assert parked == {"parked": ("lightbus::unrouted", "1000.lightbus:shop:gone:auth", None)}


async def test_an_event_that_returned_under_the_old_names_keeps_its_name_and_attempt(
    make_bus: MakeBus, broker: Broker
) -> None:
    await make_old(broker)
    await broker.put(
        "lightbus:return",
        f"1000.{QUEUE}",
        b'{"username": "ada"}',
        message_type="auth.user_created",
        headers={"lightbus-attempt": 3},
    )
    await migrate(make_bus)

    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1, max_attempts=3)

    async def welcome(username: str) -> None:
        await seen.add(username)
        raise ValueError(username)

    bus.auth.user_created.listen(welcome, listener_name="welcome", on_error=OnError.RETRY)
    async with Worker(bus):
        await broker.wait_for_count("lightbus:shop:dead", 1)
    assert seen.items == ["ada"]


async def test_objects_that_another_service_uses_stay_until_it_is_migrated(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await broker.channel.queue_declare(OTHER, durable=True, arguments=QUORUM)
    await broker.channel.queue_bind(OTHER, "lightbus:auth", "user_created")
    await make_old(broker, 1000, 7777, queues=(QUEUE, OTHER))
    await delay(broker, 1000, "of both", queue=OTHER)
    await delay(broker, 7777, "of the other", queue=OTHER)

    await migrate(make_bus)

    # Events in a shared delay queue return to the other service, even before it is migrated.
    assert await taken(broker, OTHER, 1) == {"of both": ("lightbus::return", f"1000.{OTHER}", 3)}
    assert old_names(topology) == {
        "lightbus:delay",
        "lightbus:delay:7777",
        "lightbus:return",
        "lightbus:unrouted",
    }
    # Its workers can continue.
    await park(broker, "parked")

    await broker.channel.queue_delete(OTHER)
    await migrate(make_bus, "billing", retry={"first": 7.777, "longest": 7.777})

    assert "lightbus:delay:7777" not in topology.queues()
    await migrate(make_bus)
    assert old_names(topology) == set()
    assert set(await taken(broker, "lightbus::unrouted", 1)) == {"parked"}


async def test_a_recreated_queue_still_gets_events_through_the_old_exchange(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await broker.channel.queue_delete(QUEUE)
    await broker.channel.queue_declare(QUEUE, durable=True, arguments=QUORUM)
    # A delay from an earlier configuration
    await make_old(broker, 7777)

    await migrate(make_bus)
    await broker.put("lightbus:return", f"7777.{QUEUE}", b"{}", message_id="late")

    assert set(await taken(broker, QUEUE, 1)) == {"late"}


async def test_nothing_is_moved_while_a_worker_uses_the_old_names(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    await make_old(broker, 1000)
    await delay(broker, 1000, "ada")

    async def receive(_: object) -> None: ...

    await broker.channel.basic_consume(QUEUE, receive)

    with pytest.raises(TransportRefused, match=f"Queue '{QUEUE}' is in use. Stop the workers"):
        await migrate(make_bus)

    assert await broker.count("lightbus:delay:1000") == 1


async def test_old_names_are_shown_with_what_to_do(
    command: TopologyCommand, broker: Broker, topology: Topology
) -> None:
    await make_old(broker, 1000)
    await delay(broker, 1000, "ada")

    states = await command.states(code=1)

    assert {name for name, shown in states.items() if shown["state"] == "old"} == {
        "queue lightbus:delay:1000",
        "queue lightbus:unrouted",
        "exchange lightbus:delay",
        "exchange lightbus:return",
        "exchange lightbus:unrouted",
    }
    note = states["queue lightbus:delay:1000"]["note"]
    assert "'lightbus::delay:1000' replaces it. It holds 1 events. Stop the" in note
    said = await command("--migrate")
    assert "1 moved, done" in said
    assert old_names(topology) == set()


async def test_an_exchange_of_an_api_is_not_mistaken_for_an_old_one(
    make_bus: MakeBus, broker: Broker, command: TopologyCommand, topology: Topology
) -> None:
    for name in ("lightbus:delay", "lightbus:return", "lightbus:unrouted"):
        await broker.channel.exchange_declare(exchange=name, exchange_type="topic", durable=True)

    assert "old" not in {shown["state"] for shown in (await command.states(code=0)).values()}
    await migrate(make_bus)
    assert {"lightbus:delay", "lightbus:return", "lightbus:unrouted"} <= set(topology.exchanges())


@pytest.mark.timeout(240)
async def test_a_migration_that_is_killed_after_any_step_is_completed_by_the_next(
    killed_migrations: KilledMigrations, broker: Broker, topology: Topology
) -> None:
    steps = 0
    is_killed = True
    while is_killed:
        steps += 1
        await make_old(broker, 1000)
        await delay(broker, 1000, f"delayed {steps}")
        await park(broker, f"parked {steps}")

        is_killed = await killed_migrations.run(steps)
        await killed_migrations.run(-1)

        assert old_names(topology) == set()
        await take_until(broker, QUEUE, f"delayed {steps}")
        await take_until(broker, "lightbus::unrouted", f"parked {steps}")
    assert steps > 15


async def take_until(broker: Broker, queue: str, name: str) -> None:
    """Get events, some of them duplicates, until the one with this id."""
    async with asyncio.timeout(20):
        while True:
            if not await broker.count(queue):
                await asyncio.sleep(0.05)
            elif (await broker.get(queue)).header.properties.message_id == name:
                return
