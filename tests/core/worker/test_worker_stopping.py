"""How a worker stops, and what happens to its events."""

from __future__ import annotations

import asyncio
import threading

import pytest

from core.support import (
    PATIENCE,
    MakeBus,
    Received,
    names,
    take_waiting,
    wait_until_stopping,
)
from lightbus import Worker
from lightbus_memory.broker import Broker


async def test_stop_lets_a_running_handler_finish_and_leaves_the_other_events(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    go_on = asyncio.Event()

    async def handle(username: str) -> None:
        received.add(f"{username} started")
        await go_on.wait()
        received.add(f"{username} finished")

    bus.auth.user_deleted.listen(handle, listener_name="slow")

    async with Worker(bus) as worker:
        for username in ("ann", "bob"):
            await bus.auth.user_deleted.fire_async(username=username)
        assert await received.next() == "ann started"
        stopping = asyncio.create_task(worker.stop())
        await wait_until_stopping(worker)
        go_on.set()
        await stopping

    assert await received.next() == "ann finished"
    assert received.is_empty
    (left,) = take_waiting(broker, bus)
    assert (left.message.kwargs, left.attempt) == ({"username": "bob"}, 1)


async def test_stop_lets_a_running_sync_handler_finish(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    go_on = threading.Event()

    def handle(username: str) -> None:
        received.add("started")
        assert go_on.wait(PATIENCE)
        received.add("finished")

    bus.auth.user_deleted.listen(handle, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "started"
        stopping = asyncio.create_task(worker.stop())
        await wait_until_stopping(worker)
        go_on.set()
        await stopping

    assert await received.next() == "finished"
    assert worker.unfinished == 0
    assert take_waiting(broker, bus) == []


async def test_after_the_shutdown_timeout_an_event_is_requeued_unchanged(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus(shutdown_timeout=0.1)

    async def never_ends(username: str) -> None:
        received.add("started")
        try:
            await asyncio.Event().wait()
        finally:
            received.add("cancelled")

    bus.auth.user_deleted.listen(never_ends, listener_name="slow")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "started"

    assert await received.next() == "cancelled"
    (left,) = take_waiting(broker, bus)
    assert (left.message.kwargs, left.attempt, left.redeliveries) == ({"username": "ann"}, 1, 0)


async def test_after_the_shutdown_timeout_a_sync_handler_is_left_running_and_counted(
    make_bus: MakeBus, broker: Broker, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus.worker.running_tasks.CANCEL_TIMEOUT", 0.1)
    bus = make_bus(shutdown_timeout=0.1)
    go_on = threading.Event()

    def never_ends(username: str) -> None:
        received.add("started")
        go_on.wait(PATIENCE)

    bus.auth.user_deleted.listen(never_ends, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "started"

    assert worker.unfinished == 1
    assert names(take_waiting(broker, bus)) == ["ann"]
    go_on.set()


async def test_run_serves_until_it_is_asked_to_stop(make_bus: MakeBus, received: Received) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    worker = Worker(bus)

    running = asyncio.create_task(worker.run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"
    await bus.auth.user_deleted.fire_async(username="ann")
    assert await received.next() == "ann"
    worker.request_stop()

    async with asyncio.timeout(PATIENCE):
        await running


async def test_a_worker_that_is_asked_to_stop_twice_stops_at_once(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus(shutdown_timeout=600)

    async def never_ends(username: str) -> None:
        received.add("started")
        await asyncio.Event().wait()

    bus.auth.user_deleted.listen(never_ends, listener_name="slow")
    worker = Worker(bus)

    running = asyncio.create_task(worker.run())
    await bus.auth.user_deleted.fire_async(username="ann")
    assert await received.next() == "started"
    worker.request_stop()
    await asyncio.sleep(0)
    assert not running.done()
    worker.request_stop()

    async with asyncio.timeout(PATIENCE):
        await running
    assert names(take_waiting(broker, bus)) == ["ann"]


async def test_a_handler_can_stop_its_worker_and_finishes_first(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    worker = Worker(bus)

    async def last(username: str) -> None:
        await worker.stop()
        received.add(f"{username} handled")

    bus.auth.user_deleted.listen(last, listener_name="last")
    async with worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann handled"

    assert worker.failure is None
    assert take_waiting(broker, bus) == []


async def test_after_a_worker_is_asked_to_stop_no_other_handler_starts(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    worker = Worker(bus)

    async def last(username: str) -> None:
        received.add(username)
        worker.request_stop()

    bus.auth.user_deleted.listen(last, listener_name="last")
    for username in ("ann", "bob", "cid"):
        await bus.auth.user_deleted.fire_async(username=username)

    async with asyncio.timeout(PATIENCE):
        await worker.run()

    assert await received.next() == "ann"
    assert received.is_empty
    assert names(take_waiting(broker, bus)) == ["bob", "cid"]


async def test_a_coroutine_that_a_handler_awaits_can_stop_its_worker(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    worker = Worker(bus)

    async def last(username: str) -> None:
        await asyncio.gather(worker.stop(), asyncio.sleep(0))
        received.add(f"{username} handled")

    bus.auth.user_deleted.listen(last, listener_name="last")
    async with asyncio.timeout(PATIENCE / 2), worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann handled"

    assert take_waiting(broker, bus) == []


@pytest.mark.parametrize("moment", ["on_start", "on_stop"])
async def test_a_hook_can_stop_its_worker(make_bus: MakeBus, moment: str) -> None:
    bus = make_bus()
    worker = Worker(bus)
    getattr(bus.client, moment)(worker.stop)

    async with asyncio.timeout(PATIENCE):
        async with worker:
            pass
        await worker.stop()

    assert worker.unfinished == 0


async def test_a_worker_that_is_stopped_while_it_starts_serves_nothing(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    worker = Worker(bus)
    starts = asyncio.Event()

    @bus.client.on_start()
    async def wait() -> None:
        starts.set()
        await asyncio.Event().wait()

    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")
    async with asyncio.timeout(PATIENCE):
        starting = asyncio.create_task(worker.start())
        await starts.wait()
        await worker.stop()
        await starting

    assert worker.unfinished == 0
    assert received.is_empty


async def test_a_background_task_can_stop_its_worker(make_bus: MakeBus) -> None:
    bus = make_bus()
    worker = Worker(bus)
    bus.client.add_background_task(worker.stop)

    async with asyncio.timeout(PATIENCE):
        await worker.run()


async def test_a_handler_in_a_thread_can_ask_its_worker_to_stop(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    worker, loop = Worker(bus), asyncio.get_running_loop()

    def last() -> None:
        worker.request_stop()
        asyncio.run_coroutine_threadsafe(wait_until_stopping(worker), loop).result(PATIENCE)
        received.add("stopping")

    bus.auth.user_deleted.listen(last, listener_name="last")

    running = asyncio.create_task(worker.run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"
    await bus.auth.user_deleted.fire_async(username="ann")

    assert await received.next() == "stopping"
    async with asyncio.timeout(PATIENCE):
        await running


async def test_a_worker_whose_loop_is_closed_may_be_asked_to_stop(make_bus: MakeBus) -> None:
    worker = Worker(make_bus())

    def run_elsewhere() -> None:
        asyncio.run(worker.start())

    await asyncio.to_thread(run_elsewhere)
    worker.request_stop()


async def test_a_bus_accepts_listeners_after_the_loop_of_its_worker_is_closed(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    worker = Worker(bus)

    def run_elsewhere() -> None:
        asyncio.run(worker.start())

    await asyncio.to_thread(run_elsewhere)
    bus.auth.user_deleted.listen(lambda: None, listener_name="late")

    assert [listener.name for listener in bus.client.listeners] == ["late"]


async def test_a_worker_that_is_asked_to_stop_while_it_starts_stops(make_bus: MakeBus) -> None:
    bus = make_bus()

    @bus.client.on_start()
    async def never_ends() -> None:
        worker.request_stop()
        await asyncio.Event().wait()

    worker = Worker(bus)

    async with asyncio.timeout(PATIENCE):
        await worker.run()


async def test_a_stopped_worker_can_be_stopped_again(make_bus: MakeBus) -> None:
    async with Worker(make_bus()) as worker:
        await worker.stop()
        await worker.stop()


async def test_a_cancelled_run_stops_the_worker(make_bus: MakeBus, received: Received) -> None:
    bus = make_bus()
    bus.client.on_stop(lambda: received.add("stopped"))
    running = asyncio.create_task(Worker(bus).run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert await received.next() == "stopped"
