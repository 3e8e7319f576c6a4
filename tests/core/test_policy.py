"""`OnError.RETRY`: waits that grow, kept by the broker, and the worker lives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.support import Broken, MakeBus, Received, eventually, names, next_delay
from lightbus import Bus, OnError, Worker
from lightbus.exceptions import ConfigError
from lightbus.policy import Retry
from lightbus_memory.broker import Broker

# Short enough to wait for.
QUICK = {"first": 0.01, "factor": 2, "longest": 0.05}


def listen(bus: Bus, handler: Any) -> None:
    bus.auth.user_deleted.listen(handler, listener_name="gather", on_error=OnError.RETRY)


async def test_an_event_is_retried_until_it_is_handled_and_the_worker_runs_on(
    make_bus: MakeBus, received: Received, broker: Broker
) -> None:
    bus = make_bus(retry=QUICK)
    attempts: list[str] = []

    def fail_three_times(username: str) -> None:
        attempts.append(username)
        if attempts.count("ann") < 4:
            raise Broken
        received.add(username)

    listen(bus, fail_three_times)
    await bus.auth.user_deleted.fire_async(username="ann")

    async with Worker(bus) as worker:
        assert await received.next() == "ann"
        assert worker.failure is None
    assert attempts == ["ann"] * 4
    assert broker.dead_letters("shop") == []


async def test_other_events_do_not_wait_for_one_that_is_retried(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(retry={"first": 60})

    def handle(username: str) -> None:
        if username == "fails":
            raise Broken
        received.add(username)

    listen(bus, handle)
    for username in ("fails", "ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)

    async with Worker(bus):
        assert await received.next_ones(2) == ["ann", "bob"]


async def test_after_the_last_attempt_an_event_is_dead_lettered_and_the_worker_runs_on(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(retry=QUICK, max_attempts=3)
    attempts: list[str] = []

    def fail(username: str) -> None:
        attempts.append(username)
        raise Broken("no use")

    listen(bus, fail)
    await bus.auth.user_deleted.fire_async(username="ann")

    async with Worker(bus) as worker:
        await eventually(lambda: broker.dead_letters("shop"))
        assert worker.failure is None
    assert attempts == ["ann"] * 3
    (letter,) = broker.dead_letters("shop")
    assert names([letter]) == ["ann"]
    assert (letter.failure.attempt, letter.failure.error_message) == (3, "no use")


async def test_the_broker_keeps_the_delay_and_not_the_worker(
    make_bus: MakeBus, received: Received, broker: Broker
) -> None:
    bus = make_bus(retry={"first": 100, "longest": 100})

    def fail(username: str) -> None:
        received.add(username)
        raise Broken

    listen(bus, fail)
    await bus.auth.user_deleted.fire_async(username="ann")
    async with Worker(bus):
        await received.next()
        await eventually(lambda: next_delay(broker, bus))

    delay = next_delay(broker, bus)
    assert delay is not None
    assert 70 < delay <= 120


def test_waits_grow_up_to_the_limit_and_have_jitter() -> None:
    retry = Retry(first=1, factor=4, longest=30)

    waits = {attempt: {retry.delay_after(attempt) for _ in range(200)} for attempt in range(1, 7)}

    assert waits[1] == {0.8, 1.0, 1.2}
    assert waits[2] == {3.2, 4.0, 4.8}
    assert waits[3] == {12.8, 16.0, 19.2}
    assert waits[4] == waits[6] == {24.0, 30.0, 36.0}
    assert retry.delays == set().union(*waits.values())


def test_without_growth_every_wait_is_the_same() -> None:
    assert Retry(first=5, factor=1).delays == {4.0, 5.0, 6.0}


@given(st.floats(0.001, 1000), st.floats(1, 100), st.floats(0.001, 1e6), st.integers(1, 1_000_000))
def test_every_wait_is_one_of_the_declared_delays(
    first: float, factor: float, longest: float, attempt: int
) -> None:
    settings = {"first": first, "factor": factor, "longest": longest}
    try:
        retry = msgspec.convert(settings, Retry)
    except msgspec.ValidationError:
        return
    assert retry.delay_after(attempt) in retry.delays
    assert 3 <= len(retry.delays) <= 63 or first < 0.01


@pytest.mark.parametrize(
    ("retry", "problem"),
    [
        ({"first": 10, "longest": 5}, "`longest` is 5 s, less than `first`"),
        ({"factor": 1.001}, "more than 20 waits from 1 s to 300 s with a factor of 1.001"),
        ({"frst": 1}, "Did you mean 'first'?"),
        ({"first": 0}, "> 0"),
    ],
)
def test_invalid_waits_are_refused(
    make_bus: MakeBus, retry: dict[str, float], problem: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        make_bus(retry=retry)

    assert problem in str(raised.value)
    assert raised.value.path.startswith("$.apis.default")
