"""The worker: whom it serves, in which order, and how many at once."""

from __future__ import annotations

import asyncio
import threading

from core.apis import AuthApi
from core.support import (
    PATIENCE,
    MakeBus,
    Received,
)
from lightbus import Worker


async def test_an_event_reaches_every_listener_of_it(make_bus: MakeBus, received: Received) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(lambda username: received.add(("a", username)), listener_name="a")
    bus.auth.user_deleted.listen(lambda username: received.add(("b", username)), listener_name="b")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert sorted(await received.next_ones(2)) == [("a", "ann"), ("b", "ann")]


async def test_workers_of_one_service_share_its_events(
    make_bus: MakeBus, received: Received
) -> None:
    one, other, sender = make_bus(), make_bus(), make_bus()
    for bus in (one, other):
        bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(one), Worker(other):
        for number in range(10):
            await sender.auth.user_deleted.fire_async(username=str(number))
        got = await received.next_ones(10)

    assert sorted(got) == [str(number) for number in range(10)]
    assert received.is_empty


async def test_each_service_gets_every_event(make_bus: MakeBus, received: Received) -> None:
    shop, bank = make_bus(service_name="shop"), make_bus(service_name="bank")
    for bus in (shop, bank):
        bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(shop), Worker(bank):
        await shop.auth.user_deleted.fire_async(username="ann")

        assert await received.next_ones(2) == ["ann", "ann"]


async def test_one_listener_can_receive_several_events(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.client.listen_for_events(
        [("auth", "user_created"), ("auth", "user_deleted")],
        lambda event: received.add(event.canonical_name),
        listener_name="both",
    )

    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ann", email="a@example.com")
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next_ones(2) == ["auth.user_created", "auth.user_deleted"]


async def test_an_event_fired_before_a_worker_runs_waits_for_its_listener(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")

    async with Worker(bus):
        assert await received.next() == "ann"


async def test_an_event_fired_inside_an_async_on_start_hook_reaches_the_new_listener(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    @bus.client.on_start()
    async def on_start() -> None:
        bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
        await bus.auth.user_deleted.fire_async(username="ann")

    async with Worker(bus):
        assert await received.next() == "ann"


async def test_an_event_fired_inside_a_sync_on_start_hook_reaches_the_new_listener(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    @bus.client.on_start()
    def on_start() -> None:
        bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
        bus.auth.user_deleted.fire(username="ann")

    async with Worker(bus):
        assert await received.next() == "ann"


async def test_a_listener_that_is_added_while_the_worker_runs_is_served(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    async with Worker(bus):
        bus.auth.user_deleted.listen(received.add_name, listener_name="late")
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next() == "ann"


async def test_a_listener_that_a_thread_adds_while_the_worker_runs_is_served(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    def add_and_fire() -> None:
        bus.auth.user_deleted.listen(received.add_name, listener_name="late")
        bus.auth.user_deleted.fire(username="ann")

    async with Worker(bus):
        await asyncio.to_thread(add_and_fire)

        assert await received.next() == "ann"


async def test_a_listener_that_a_handler_adds_is_served(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    async def add_another(username: str) -> None:
        bus.auth.user_created.listen(received.add_name, listener_name="created")
        await bus.auth.user_created.fire_async(username=username, email="")

    bus.auth.user_deleted.listen(add_another, listener_name="deleted")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next() == "ann"


async def test_a_sync_handler_does_not_block_the_loop(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    go_on = threading.Event()

    def waits_for_the_loop(username: str) -> None:
        received.add("started")
        assert go_on.wait(PATIENCE)
        received.add("finished")

    bus.auth.user_deleted.listen(waits_for_the_loop, listener_name="sync")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "started"
        go_on.set()
        assert await received.next() == "finished"


async def test_one_event_after_another_is_handled_in_the_order_of_firing(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    running = 0

    async def handle(username: int) -> None:
        nonlocal running
        running += 1
        received.add((username, running))
        await asyncio.sleep(0)
        running -= 1

    bus.auth.user_deleted.listen(handle, listener_name="in-order")

    async with Worker(bus):
        for number in range(20):
            await bus.auth.user_deleted.fire_async(username=number)

        assert await received.next_ones(20) == [(number, 1) for number in range(20)]


async def test_async_handlers_run_in_parallel_up_to_the_concurrency(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    three_at_once = asyncio.Barrier(3)
    most = running = 0

    async def handle(username: int) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await three_at_once.wait()
        running -= 1
        received.add(username)

    bus.auth.user_deleted.listen(handle, listener_name="parallel", concurrency=3)

    async with Worker(bus):
        for number in range(9):
            await bus.auth.user_deleted.fire_async(username=number)
        got = await received.next_ones(9)

    assert sorted(got) == list(range(9))
    assert most == 3


async def test_sync_handlers_run_in_parallel_up_to_the_concurrency(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    three_at_once = threading.Barrier(3, timeout=PATIENCE)

    def handle(username: int) -> None:
        three_at_once.wait()
        received.add(username)

    bus.auth.user_deleted.listen(handle, listener_name="parallel", concurrency=3)

    async with Worker(bus):
        for number in range(6):
            await bus.auth.user_deleted.fire_async(username=number)

        assert sorted(await received.next_ones(6)) == list(range(6))


async def test_a_busy_listener_holds_up_no_other(make_bus: MakeBus, received: Received) -> None:
    bus = make_bus()
    go_on = asyncio.Event()

    async def busy(username: str) -> None:
        await go_on.wait()

    bus.auth.user_deleted.listen(busy, listener_name="busy")
    bus.auth.user_deleted.listen(received.add_name, listener_name="free")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"
        go_on.set()


async def test_a_bus_serves_again_after_its_worker_stopped(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(AuthApi)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    for username in ("ann", "bob"):
        async with Worker(bus):
            await bus.auth.user_deleted.fire_async(username=username)
            assert await received.next() == username
