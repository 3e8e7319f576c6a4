"""What transports share."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from datetime import datetime

import pytest

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.kit import (
    BufferedStream,
    OpenStreams,
    SettleOnce,
    SharedTask,
    backoff,
    check_delay,
    start_generator,
)
from lightbus.transport.records import Subscription

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="gather",
    api_name="auth",
    events=frozenset({"user_deleted"}),
    concurrency=1,
    acknowledgement_timeout=60,
    delays=frozenset({1.0, 60.0}),
)


class Delivery(SettleOnce):
    def __init__(self, username: str = "ann") -> None:
        self.message = EventMessage.create("auth", "user_deleted", {"username": username})
        self.attempt = 1
        self.redeliveries = 0
        self.first_failed_at: datetime | None = None

    async def ack(self) -> None: ...

    async def requeue(self) -> None: ...

    async def retry(self, *, after: float, counts: bool = True) -> None: ...

    async def dead_letter(self, failure: Failure) -> None: ...


class Stream(BufferedStream[Delivery]):
    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    async def stop(self) -> None:
        self.end()

    async def aclose(self) -> None:
        self.is_closed = True


# SharedTask


async def test_a_shared_task_runs_once_for_all_its_callers() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        await asyncio.sleep(0)
        runs += 1

    shared = SharedTask(work)

    await asyncio.gather(shared(), shared())
    await shared()

    assert runs == 1


async def test_a_shared_task_starts_with_its_first_call() -> None:
    async def work() -> None: ...

    assert not SharedTask(work).has_started
    shared = SharedTask(work)
    task = shared.start()
    assert shared.has_started
    assert shared.start() is task
    await task


async def test_a_caller_that_is_cancelled_does_not_cancel_a_shared_task() -> None:
    may_end = asyncio.Event()

    async def work() -> None:
        await may_end.wait()

    shared = SharedTask(work)
    caller = asyncio.create_task(shared())
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    may_end.set()
    await shared()


# backoff


def test_delays_double_up_to_the_longest_and_vary() -> None:
    delays = [*itertools.islice(backoff(first=1, longest=5), 5)]

    for delay, longest in zip(delays, [1, 2, 4, 5, 5], strict=True):
        assert longest / 2 <= delay <= longest


# check_delay


@pytest.mark.parametrize(("after", "counts"), [(0, True), (1.0, True), (60.0, False)])
def test_a_delay_of_the_subscription_is_allowed(after: float, *, counts: bool) -> None:
    check_delay(SUBSCRIPTION, after, counts=counts)


@pytest.mark.parametrize(("after", "counts"), [(2.0, True), (-1.0, True), (0, False)])
def test_another_delay_is_an_error_that_names_those_allowed(after: float, *, counts: bool) -> None:
    with pytest.raises(ValueError, match="1, 60"):
        check_delay(SUBSCRIPTION, after, counts=counts)


# SettleOnce


def test_a_second_settlement_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    delivery = Delivery()
    assert delivery.can_settle()

    delivery.is_settled = True

    with caplog.at_level(logging.DEBUG, logger="lightbus"):
        assert not delivery.can_settle()
    (record,) = caplog.records
    assert record.name == "lightbus.transport.kit"


# OpenStreams


async def test_closed_streams_are_forgotten() -> None:
    streams: OpenStreams[Stream] = OpenStreams()
    first, second = streams.add(Stream()), streams.add(Stream())
    await first.aclose()

    third = streams.add(Stream())

    assert [*streams] == [second, third]


async def test_all_streams_are_closed_together() -> None:
    streams: OpenStreams[Stream] = OpenStreams()
    opened = [streams.add(Stream()) for _ in range(2)]

    await streams.close()

    assert all(stream.is_closed for stream in opened)
    assert [*streams] == []


# BufferedStream


async def test_a_stream_yields_its_buffer_in_order() -> None:
    stream = Stream()
    first, second = Delivery(), Delivery()
    stream.feed(first)
    stream.feed(second)

    assert [await anext(stream), await anext(stream)] == [first, second]


async def test_ending_a_stream_returns_the_deliveries_that_no_task_received() -> None:
    stream = Stream()
    received, left = Delivery(), Delivery()
    stream.feed(received)
    stream.feed(left)
    assert await anext(stream) is received

    assert stream.end() == [left]

    assert await anext(stream, None) is None


async def test_ending_a_stream_ends_each_task_that_waits() -> None:
    stream = Stream()
    waiting = [asyncio.create_task(anext(stream, None)) for _ in range(3)]
    await asyncio.sleep(0)

    assert stream.end() == []

    assert await asyncio.gather(*waiting) == [None, None, None]


async def test_each_task_raises_the_error_that_ended_a_stream() -> None:
    stream = Stream()
    waiting = [asyncio.create_task(anext(stream)) for _ in range(2)]
    await asyncio.sleep(0)

    stream.end(ValueError("the queue is gone"))
    stream.end()

    for task in waiting:
        with pytest.raises(ValueError, match="the queue is gone"):
            await task
    with pytest.raises(ValueError, match="the queue is gone"):
        await anext(stream)


# start_generator


async def test_a_started_generator_yields_its_events_and_cleans_up_when_it_is_closed() -> None:
    steps: list[str] = []
    event = EventMessage.create("auth", "user_deleted", {"username": "ann"})

    async def read() -> AsyncGenerator[EventMessage | None]:
        steps.append("started")
        try:
            yield None
            yield event
        finally:
            steps.append("closed")

    events = await start_generator(read())
    assert steps == ["started"]
    assert await anext(events) is event
    await events.aclose()
    assert steps == ["started", "closed"]
