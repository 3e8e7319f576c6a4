"""A migration that is killed, or whose broker is, loses no event; the next one completes it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiormq
import pytest

from lightbus import Bus, create
from lightbus.exceptions import TransportError
from rabbitmq.topology_support import (
    BINDINGS,
    OLD,
    TEMPORARY,
    WANTED,
    KilledMigrations,
    declare_old_queue,
    fire,
    get_events,
    migrate,
    queue_bindings,
    username_of,
)
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import QUEUE, AuthApi, Broker, MakeBus, Topology

pytestmark = pytest.mark.faults


@pytest.mark.timeout(240)
@pytest.mark.parametrize("old", [{}, OLD], ids=["classic", "quorum"])
async def test_a_migration_that_is_killed_repeatedly_loses_no_event(
    killed_migrations: KilledMigrations,
    make_bus: MakeBus,
    broker: Broker,
    topology: Topology,
    old: dict[str, Any],
) -> None:
    await declare_old_queue(make_bus, broker, old)
    fired = {f"{number}" for number in range(3)}
    await fire(make_bus, *fired)

    kills = 0
    while await killed_migrations.run(kills + 1):
        kills += 1
        # Events that are fired between two migrations must not be lost, either.
        name = f"after {kills}"
        await fire(make_bus, name)
        fired.add(name)

    assert kills > 20
    await check_migrated(broker, topology, fired)


@pytest.mark.timeout(240)
async def test_a_migration_that_is_killed_after_any_step_is_completed_by_the_next(
    killed_migrations: KilledMigrations, make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    steps = 0
    is_killed = True
    while is_killed:
        steps += 1
        await declare_old_queue(make_bus, broker, OLD)
        await fire(make_bus, "before 1", "before 2")

        is_killed = await killed_migrations.run(steps)
        await fire(make_bus, "after")
        await killed_migrations.run(-1)

        await check_migrated(broker, topology, {"before 1", "before 2", "after"})
    assert steps > 30


async def check_migrated(broker: Broker, topology: Topology, fired: set[str]) -> None:
    """Check that the queue has the desired settings and all events; get the events."""
    assert topology.queues()[QUEUE] == WANTED
    assert TEMPORARY not in topology.queues()
    assert queue_bindings(topology) == BINDINGS
    kept = [username_of(message) for message in await get_events(broker, await broker.count(QUEUE))]
    assert set(kept) == fired


@pytest.mark.timeout(150)
async def test_a_broker_that_is_killed_during_a_migration_ends_it_and_loses_no_event(
    private_rabbitmq_node: RabbitMQNode,
) -> None:
    node = private_rabbitmq_node
    settings = {"url": node.url(), "operation_timeout": 5, "connect_timeout": 1}
    default = {"event_transport": {"rabbitmq": settings}, "acknowledgement_timeout": 1}

    def make_bus(**_: Any) -> Bus:
        bus = create({"apis": {"default": default}}, service_name="shop")
        bus.client.register_api(AuthApi)
        return bus

    connection = await aiormq.connect(node.url())
    await declare_old_queue(make_bus, Broker(await connection.channel()), OLD)
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
    taken = await get_events(broker, await broker.count(QUEUE))
    assert {username_of(message) for message in taken} == set(names)
    await connection.close()
