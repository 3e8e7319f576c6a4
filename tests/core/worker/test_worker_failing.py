"""The worker: which failures end it, and what becomes of the failed event."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest

from core.support import (
    PATIENCE,
    Broken,
    MakeBus,
    Received,
    eventually,
    names,
    next_delay,
    raise_broken,
    take_waiting,
    wait_until_stopping,
)
from lightbus import OnError, Worker
from lightbus.exceptions import (
    ApiError,
    HandlerExited,
    HandlerTimeout,
    TransportClosed,
    TransportRefused,
)
from lightbus_memory.broker import Broker

# No folder can be made there.
UNUSABLE = {"event_transport": {"sqlite": {"path": "/dev/null/events.db"}}}


async def test_a_failing_handler_ends_the_run_with_its_error(make_bus: MakeBus) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken, match="ann"):
        await Worker(bus).run()


class Panic(BaseException):
    """As extensions in Rust raise."""


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_handler_that_raises_a_base_exception_has_failed(
    make_bus: MakeBus, broker: Broker, *, is_async: bool
) -> None:
    bus = make_bus()

    def panic(username: str) -> None:
        raise Panic(username)

    async def panic_async(username: str) -> None:
        panic(username)

    bus.auth.user_deleted.listen(panic_async if is_async else panic, listener_name="panics")
    await bus.auth.user_deleted.fire_async(username="ann")

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(HandlerExited, match="raised Panic: ann"):
            await Worker(bus).run()

    assert next_delay(broker, bus) is not None


async def test_a_listener_that_something_cancels_ends_the_run(make_bus: MakeBus) -> None:
    bus = make_bus()

    async def handle(username: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.05, task.cancel)

    bus.auth.user_deleted.listen(handle, listener_name="handle")
    await bus.auth.user_deleted.fire_async(username="ann")

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(HandlerExited, match="'handle' raised CancelledError"):
            await Worker(bus).run()


async def test_a_listener_whose_bus_is_closed_ends_the_run(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(received.add_name, listener_name="handle")
    running = asyncio.create_task(Worker(bus).run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"

    await bus.client.close_async()

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TransportClosed, match="'handle' stopped"):
            await running


async def test_no_event_is_handled_after_the_one_that_failed(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()

    async def fails(username: str) -> None:
        received.add(username)
        raise Broken(username)

    bus.auth.user_deleted.listen(fails, listener_name="fails")
    for username in ("ann", "bob", "cid"):
        await bus.auth.user_deleted.fire_async(username=username)

    with pytest.raises(Broken, match="ann"):
        await Worker(bus).run()

    assert await received.next() == "ann"
    assert received.is_empty
    assert names(take_waiting(broker, bus)) == ["bob", "cid"]


async def test_the_failed_event_waits_for_the_acknowledgement_timeout(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=60)
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken):
        await Worker(bus).run()

    assert take_waiting(broker, bus) == []
    assert 50 < (next_delay(broker, bus) or 0) <= 60
    assert broker.dead_letters("shop") == []


async def test_the_next_worker_tries_the_failed_event_again(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=0.2)
    loop = asyncio.get_running_loop()
    tries: list[float] = []

    async def fails_once(username: str) -> None:
        tries.append(loop.time())
        if len(tries) == 1:
            raise Broken
        received.add(username)

    bus.auth.user_deleted.listen(fails_once, listener_name="fails")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken):
        await Worker(bus).run()
    async with Worker(bus):
        assert await received.next() == "ann"

    assert tries[1] - tries[0] >= 0.2


async def test_when_one_handler_fails_the_others_finish(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    worker, has_started = Worker(bus), asyncio.Event()

    async def slow(username: str) -> None:
        has_started.set()
        await wait_until_stopping(worker)
        received.add("finished")

    async def fails(username: str) -> None:
        await has_started.wait()
        raise Broken

    bus.auth.user_deleted.listen(slow, listener_name="slow")
    bus.auth.user_deleted.listen(fails, listener_name="fails")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken):
        await worker.run()

    assert await received.next() == "finished"
    assert take_waiting(broker, bus) == []


async def test_a_sync_handler_that_is_stuck_ends_the_run(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, shutdown_timeout=0.1)
    go_on = threading.Event()
    bus.auth.user_deleted.listen(lambda _: go_on.wait(PATIENCE), listener_name="stuck")
    await bus.auth.user_deleted.fire_async(username="ann")
    worker = Worker(bus)

    with pytest.raises(HandlerTimeout, match="'stuck'"):
        await worker.run()

    assert worker.unfinished == 1
    go_on.set()


async def test_an_async_handler_that_ignores_its_cancellation_ends_the_run(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, shutdown_timeout=0.1)

    async def stubborn(username: str) -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(0.3)
            except asyncio.CancelledError:
                continue

    bus.auth.user_deleted.listen(stubborn, listener_name="stubborn")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(HandlerTimeout, match="'stubborn'"):
        await Worker(bus).run()


async def test_a_failing_on_start_hook_ends_the_run_before_any_event_is_taken(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(raise_broken, listener_name="not-reached")
    await bus.auth.user_deleted.fire_async(username="ann")

    @bus.client.on_start()
    async def fails() -> None:
        raise ValueError("no database")

    with pytest.raises(ValueError, match="no database"):
        await Worker(bus).run()

    assert names(take_waiting(broker, bus)) == ["ann"]


async def test_a_failing_on_stop_hook_ends_the_run_with_its_error(make_bus: MakeBus) -> None:
    bus = make_bus()
    worker = Worker(bus)

    @bus.client.on_stop()
    async def fails() -> None:
        raise ValueError("no database")

    with pytest.raises(ValueError, match="no database"):
        await worker.run(on_started=worker.request_stop)


async def test_a_late_listener_that_cannot_be_served_ends_the_run(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(others={"elsewhere": UNUSABLE})
    running = asyncio.create_task(Worker(bus).run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"

    bus.elsewhere.happened.listen(received.add_name, listener_name="late")

    with pytest.raises(TransportRefused, match="cannot be used"):
        await running


async def test_an_error_behind_a_failing_handler_is_not_hidden_by_a_later_one(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    worker, both = Worker(bus), asyncio.Barrier(2)

    async def fails_first(username: str) -> None:
        await both.wait()
        raise Broken("first")

    async def fails_later(username: str) -> None:
        await both.wait()
        await wait_until_stopping(worker)
        raise Broken("later")

    bus.auth.user_deleted.listen(fails_first, listener_name="first")
    bus.auth.user_deleted.listen(fails_later, listener_name="later")
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken, match="first"):
        await worker.run()


async def test_on_error_given_to_listen_decides_for_that_listener_alone(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(
        raise_broken, listener_name="lenient", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    bus.auth.user_created.listen(raise_broken, listener_name="strict", on_error=OnError.SHUTDOWN)

    running = asyncio.create_task(Worker(bus).run(on_started=lambda: received.add("started")))
    assert await received.next() == "started"
    await bus.auth.user_deleted.fire_async(username="ann")
    await eventually(lambda: broker.dead_letters("shop"))
    assert not running.done()
    await bus.auth.user_created.fire_async(username="bob", email="")

    with pytest.raises(Broken, match="bob"):
        await running


async def test_a_worker_that_cannot_serve_its_last_listener_serves_none(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(others={"elsewhere": UNUSABLE})
    bus.auth.user_deleted.listen(raise_broken, listener_name="not-reached")
    bus.elsewhere.happened.listen(raise_broken, listener_name="unusable")
    worker = Worker(bus)

    with pytest.raises(TransportRefused):
        await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")

    assert names(take_waiting(broker, bus)) == ["ann"]


async def test_a_worker_beside_other_code_stops_when_a_listener_fails(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.client.on_stop(lambda: received.add("stopped"))
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails")

    async def other_code() -> None:
        async with Worker(bus):
            await bus.auth.user_deleted.fire_async(username="ann")
            assert await received.next() == "stopped"

    with pytest.raises(Broken, match="ann"):
        await other_code()


async def test_an_error_of_the_other_code_is_not_hidden_by_a_failed_listener(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails")

    async def other_code() -> None:
        async with Worker(bus) as worker:
            await bus.auth.user_deleted.fire_async(username="ann")
            await eventually(lambda: worker.failure)
            raise KeyError

    with pytest.raises(KeyError):
        await other_code()


async def test_a_worker_runs_only_once(make_bus: MakeBus) -> None:
    async with Worker(make_bus()) as worker:
        with pytest.raises(ApiError, match="Make another"):
            await worker.start()
        with pytest.raises(ApiError):
            await worker.run()


async def test_a_stuck_handler_is_noticed_while_its_event_cannot_be_settled(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    file = tmp_path / "events.db"
    transport = {"sqlite": {"path": str(file)}}
    bus = make_bus(acknowledgement_timeout=0.5, shutdown_timeout=0.1, event_transport=transport)
    has_started, is_over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stuck(username: str) -> None:
        loop.call_soon_threadsafe(has_started.set)
        is_over.wait(4 * PATIENCE)

    bus.auth.user_deleted.listen(stuck, listener_name="stuck")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    await has_started.wait()
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            await eventually(lambda: worker.failure)
        finally:
            is_over.set()
    assert isinstance(worker.failure, HandlerTimeout)
    await worker.stop()
