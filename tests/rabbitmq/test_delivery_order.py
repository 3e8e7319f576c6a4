"""Which listeners get an event, and in which order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

import pytest
from pamqp.commands import Basic

from lightbus import Bus, OnError, Worker
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Seen

KEEP_GOING = OnError.ACKNOWLEDGE_AND_LOG


async def fire_at_once(bus: Bus, usernames: Iterable[object]) -> None:
    fired = (bus.auth.user_created.fire_async(username=name, email="e") for name in usernames)
    await asyncio.gather(*fired)


async def test_every_listener_of_a_service_gets_every_event(make_bus: MakeBus) -> None:
    bus = make_bus()
    welcomed, counted = Seen[str](), Seen[str]()

    async def welcome(username: str) -> None:
        await welcomed.add(username)

    async def count(username: str) -> None:
        await counted.add(username)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    bus.auth.user_created.listen(count, listener_name="count")
    async with Worker(bus):
        for name in ("ada", "bob"):
            await bus.auth.user_created.fire_async(username=name, email="e")

        assert await welcomed.wait_for(2) == ["ada", "bob"]
        assert await counted.wait_for(2) == ["ada", "bob"]


async def test_two_workers_of_one_service_share_the_events(make_bus: MakeBus) -> None:
    buses = [make_bus(transport={"prefetch": 1}), make_bus(transport={"prefetch": 1})]
    seen = Seen[tuple[int, str]]()
    for number, bus in enumerate(buses):

        async def welcome(username: str, number: int = number) -> None:
            await seen.add((number, username))

        bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(buses[0]), Worker(buses[1]):
        fired = [f"user-{i}" for i in range(60)]
        for name in fired:
            await buses[0].auth.user_created.fire_async(username=name, email="e")

        items = await seen.wait_for(60)

    assert sorted(name for _, name in items) == sorted(fired)
    assert {number for number, _ in items} == {0, 1}


async def test_services_of_different_names_each_get_every_event(make_bus: MakeBus) -> None:
    shop, billing = make_bus(service_name="shop"), make_bus(service_name="billing")
    seen = Seen[str]()
    shop.auth.user_created.listen(lambda username: seen.add("shop"), listener_name="welcome")
    billing.auth.user_created.listen(lambda username: seen.add("billing"), listener_name="welcome")

    async with Worker(shop), Worker(billing):
        await shop.auth.user_created.fire_async(username="ada", email="e")

        assert sorted(await seen.wait_for(2)) == ["billing", "shop"]


async def test_a_service_that_was_down_gets_all_events_fired_in_the_meantime(
    make_bus: MakeBus,
) -> None:
    shop, auth = make_bus(), make_bus(service_name="auth_service")
    seen = Seen[str]()
    shop.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(shop):
        pass

    fired = [f"user-{i}" for i in range(1000)]
    await fire_at_once(auth, fired)

    async with Worker(shop):
        assert sorted(await seen.wait_for(1000, timeout=40)) == sorted(fired)


async def test_events_are_delivered_in_the_order_of_firing(make_bus: MakeBus) -> None:
    bus = make_bus()
    seen = Seen[int]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        for number in range(300):
            await bus.auth.user_created.fire_async(username=number, email="e")

        assert await seen.wait_for(300) == list(range(300))


async def test_events_are_delivered_in_order_to_workers_that_start_while_they_are_fired(
    make_bus: MakeBus,
) -> None:
    bus, auth = make_bus(), make_bus(service_name="auth_service")
    seen = Seen[int]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    numbers = itertools.count()
    async with Worker(bus):
        pass

    for start in range(1, 13):
        await fire_at_once(auth, itertools.islice(numbers, 50))
        async with Worker(bus):
            for _ in range(50):
                await fire_at_once(auth, itertools.islice(numbers, 4))
            assert await seen.wait_for(start * 250) == list(range(start * 250))


# A listener with a short timeout holds 50 events, and one with a long timeout 15.


@pytest.mark.parametrize("acknowledgement_timeout", [10, 60])
async def test_events_are_delivered_in_order_to_workers_that_stop_and_start(
    make_bus: MakeBus, acknowledgement_timeout: int
) -> None:
    bus = make_bus(acknowledgement_timeout=acknowledgement_timeout)
    seen = Seen[int]()

    async def welcome(username: int) -> None:
        await asyncio.sleep(0.001)
        await seen.add(username)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    for number in range(400):
        await bus.auth.user_created.fire_async(username=number, email="e")

    # What two workers in turn give back is deferred before RabbitMQ 4.3, so each handles more than
    # the one before it gave back.
    for handled in (70, 140, 210, 280, 400):
        async with Worker(bus):
            await seen.wait_for(handled)

    assert seen.items == list(range(400))


@pytest.mark.parametrize("concurrency", [1, 20])
async def test_events_that_arrive_while_a_worker_starts_do_not_count_an_attempt(
    make_bus: MakeBus, broker: Broker, concurrency: int
) -> None:
    bus, auth = make_bus(max_attempts=1), make_bus(service_name="auth_service")
    seen = Seen[int]()
    bus.auth.user_created.listen(
        lambda username: seen.add(username),
        listener_name="welcome",
        concurrency=concurrency,
    )
    async with Worker(bus):
        pass

    for start in range(1, 7):
        async with Worker(bus):
            for number in range(200):
                await auth.auth.user_created.fire_async(username=number, email="e")
            assert len(await seen.wait_for(start * 200)) == start * 200
    assert await broker.count(DEAD) == 0


async def test_events_behind_a_redelivered_one_do_not_count_an_attempt_while_a_worker_starts(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus, auth = make_bus(max_attempts=1), make_bus(service_name="auth_service")
    seen = Seen[int]()
    bus.auth.user_created.listen(
        lambda username: seen.add(username), listener_name="welcome", concurrency=20
    )
    async with Worker(bus):
        pass

    for start in range(1, 9):
        await auth.auth.user_created.fire_async(username=0, email="e")
        taken = (await broker.channel.basic_get(QUEUE)).delivery
        assert isinstance(taken, Basic.GetOk)
        await broker.channel.basic_reject(int(taken.delivery_tag or 0), requeue=True)
        async with Worker(bus):
            await seen.wait_for(60 * (start - 1) + 1)
            await fire_at_once(auth, range(1, 20))
            for number in range(20, 60):
                await auth.auth.user_created.fire_async(username=number, email="e")
            await seen.wait_for(60 * start)
    assert await broker.count(DEAD) == 0


async def test_events_fired_before_there_is_a_connection_are_sent_in_order(
    make_bus: MakeBus,
) -> None:
    bus, auth = make_bus(), make_bus(service_name="auth_service")
    seen = Seen[int]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        pass

    numbers = range(500)
    await fire_at_once(auth, numbers)

    async with Worker(bus):
        assert await seen.wait_for(500) == list(numbers)


async def test_an_event_fired_after_listen_waits_for_the_first_worker(make_bus: MakeBus) -> None:
    bus = make_bus()
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")

    await bus.auth.user_created.fire_async(username="ada", email="e")

    async with Worker(bus):
        assert await seen.wait_for(1) == ["ada"]
