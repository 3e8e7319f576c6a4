"""Attempts to handle an event: timeouts, killed workers, and the last attempt."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from core.support import (
    PATIENCE,
    Broken,
    MakeBus,
    Received,
    eventually,
    fields_of,
    names,
    raise_broken,
    take_waiting,
)
from lightbus import Bus, OnError, Worker
from lightbus_memory import MemoryTransport
from lightbus_memory.broker import Broker
from lightbus_memory.transport import MemorySettings


async def test_a_handler_that_takes_too_long_is_cancelled_and_its_event_is_retried(
    make_bus: MakeBus, broker: Broker, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1)

    async def slow_once(username: str) -> None:
        received.add("started")
        try:
            await is_second_try.wait()
        except asyncio.CancelledError:
            received.add("cancelled")
            is_second_try.set()
            raise
        received.add("finished")

    is_second_try = asyncio.Event()
    bus.auth.user_deleted.listen(slow_once, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next_ones(4) == ["started", "cancelled", "started", "finished"]

    assert worker.failure is None
    assert "did not finish within its acknowledgement_timeout of 0.1 s" in caplog.text
    assert broker.dead_letters("shop") == []


async def test_a_timeout_counts_as_an_attempt_with_any_on_error(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, max_attempts=2)

    async def too_slow_for_ann(username: str) -> None:
        received.add(username)
        if username == "ann":
            await asyncio.Event().wait()

    bus.auth.user_deleted.listen(too_slow_for_ann, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")
        assert await received.next_ones(3) == ["ann", "ann", "bob"]

    (letter,) = broker.dead_letters("shop")
    assert letter.failure.error_type == "lightbus.exceptions.HandlerTimeout"
    assert letter.failure.attempt == 2
    assert worker.failure is None


async def test_the_event_of_a_late_sync_handler_is_retried_after_its_thread_has_ended(
    make_bus: MakeBus, broker: Broker, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(acknowledgement_timeout=0.3)
    running = 0

    def slow_once(username: str) -> None:
        nonlocal running
        running += 1
        received.add(running)
        if not second_try.is_set():
            second_try.set()
            is_late.wait(PATIENCE)
        running -= 1

    second_try, is_late = threading.Event(), threading.Event()
    bus.auth.user_deleted.listen(slow_once, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: "did not finish" in caplog.text)
        is_late.set()
        # It never runs twice at once.
        assert await received.next_ones(2) == [1, 1]

    assert worker.failure is None
    assert take_waiting(broker, bus) == []
    assert broker.dead_letters("shop") == []


async def test_a_late_result_is_ignored(
    make_bus: MakeBus, broker: Broker, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, max_attempts=1)

    def late(username: str) -> None:
        is_late.wait(PATIENCE)
        received.add(username)

    is_late = threading.Event()
    bus.auth.user_deleted.listen(late, listener_name="late")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: "did not finish" in caplog.text)
        is_late.set()
        assert await received.next() == "ann"

    assert names(broker.dead_letters("shop")) == ["ann"]


async def test_an_event_whose_last_attempt_fails_is_dead_lettered_and_the_worker_runs_on(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=0.05, max_attempts=2)
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails", on_error=OnError.SHUTDOWN)
    await bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(Broken):
        await Worker(bus).run()
    async with Worker(bus) as worker:
        await eventually(lambda: broker.dead_letters("shop"))

    assert worker.failure is None
    (letter,) = broker.dead_letters("shop")
    assert (letter.failure.attempt, letter.failure.error_message) == (2, "ann")


async def lose_a_worker(broker_name: str, bus: Bus) -> None:
    """Take the next event as a worker that is then killed."""
    transport = MemoryTransport(MemorySettings(name=broker_name), client_name="killed")
    await transport.open(timeout=PATIENCE)
    stream = await transport.subscribe(next(iter(bus.client.listeners)).subscription("shop"))
    async with asyncio.timeout(PATIENCE):
        await anext(stream)
    await transport.close()


async def test_after_one_killed_worker_an_event_is_retried_at_once(
    make_bus: MakeBus, broker_name: str, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=60)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")

    await lose_a_worker(broker_name, bus)

    async with Worker(bus):
        assert await received.next() == "ann"


async def test_after_two_killed_workers_an_event_waits_before_the_next_attempt(
    make_bus: MakeBus, broker_name: str, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(acknowledgement_timeout=0.3)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    for username in ("ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)

    await lose_a_worker(broker_name, bus)
    await lose_a_worker(broker_name, bus)

    async with Worker(bus):
        assert await received.next() == "bob"
        assert received.is_empty
        assert await received.next() == "ann"
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert fields_of(warning)["redeliveries"] == 2
    assert "delayed by 0.3 s" in warning.getMessage()


async def test_an_event_that_kills_too_many_workers_is_dead_lettered_without_another_attempt(
    make_bus: MakeBus, broker: Broker, broker_name: str, received: Received
) -> None:
    bus = make_bus(max_attempts=2)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    for username in ("ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)

    await lose_a_worker(broker_name, bus)
    await lose_a_worker(broker_name, bus)

    async with Worker(bus):
        assert await received.next() == "bob"
    (letter,) = broker.dead_letters("shop")
    assert letter.message.kwargs == {"username": "ann"}
    assert letter.failure.error_type == "lightbus.exceptions.AttemptsExhausted"
