"""How deliveries are settled: retries, timeouts and dead letters."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from lightbus import OnError, Worker
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Seen, headers_of

KEEP_GOING = OnError.ACKNOWLEDGE_AND_LOG


async def test_a_failed_event_is_redelivered_later_and_others_do_not_wait(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=1)
    seen = Seen[tuple[str, float]]()

    async def welcome(username: str) -> None:
        await seen.add((username, time.monotonic()))
        if username == "bad" and len(seen.items) == 1:
            raise ValueError("once")

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    for name in ("bad", "good"):
        await bus.auth.user_created.fire_async(username=name, email="e")

    with pytest.raises(ValueError, match="once"):
        await Worker(bus).run()
    async with Worker(bus):
        items = await seen.wait_for(3)

    assert [name for name, _ in items] == ["bad", "good", "bad"]
    assert items[2][1] - items[0][1] >= 1


async def test_the_attempt_counts_failures_and_lost_workers(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=0.2, max_attempts=3)

    async def welcome(username: str) -> None:
        raise ValueError("always")

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")

    for _ in range(2):
        with pytest.raises(ValueError, match="always"):
            await Worker(bus).run()
    async with Worker(bus) as worker:
        letter = await broker.wait_for_message(DEAD)
        assert worker.failure is None

    assert headers_of(letter)["lightbus-attempt"] == 3


async def test_a_dead_letter_describes_the_failure(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()

    async def welcome(username: str) -> None:
        raise KeyError("no such user")

    bus.auth.user_created.listen(welcome, listener_name="welcome", on_error=KEEP_GOING)
    async with Worker(bus) as worker:
        message = await bus.auth.user_created.fire_async(username="ada", email="ada@example.com")
        letter = await broker.wait_for_message(DEAD)
        assert worker.failure is None

    headers = headers_of(letter)
    assert json.loads(letter.body) == {"username": "ada", "email": "ada@example.com"}
    assert letter.header.properties.message_id == message.id
    assert letter.header.properties.delivery_mode == 2
    assert headers["lightbus-error-type"] == "builtins.KeyError"
    assert headers["lightbus-error-message"] == "'no such user'"
    assert 'raise KeyError("no such user")' in headers["lightbus-traceback"]
    assert headers["lightbus-service"] == "shop"
    assert headers["lightbus-listener"] == "welcome"
    assert headers["lightbus-api"] == "auth"
    assert headers["lightbus-event"] == "user_created"
    assert headers["lightbus-queue"] == QUEUE
    assert headers["lightbus-attempt"] == 1
    assert headers["lightbus-first-failed-at"] == headers["lightbus-last-failed-at"]
    assert {"lightbus-host", "lightbus-pid", "lightbus-process"} <= set(headers)
    assert await broker.count(QUEUE) == 0


async def test_a_huge_traceback_is_cut_to_fit(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()

    async def welcome(username: str) -> None:
        raise ValueError("x" * 1_000_000 + "\ud800")

    bus.auth.user_created.listen(welcome, listener_name="welcome", on_error=KEEP_GOING)
    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="e")
        letter = await broker.wait_for_message(DEAD)

    assert headers_of(letter)["lightbus-traceback"].startswith("[cut]")


async def test_only_the_failed_listener_gets_the_event_again(make_bus: MakeBus) -> None:
    bus = make_bus(acknowledgement_timeout=0.3)
    failing, fine = Seen[str](), Seen[str]()

    async def fail(username: str) -> None:
        await failing.add(username)
        if len(failing.items) == 1:
            raise ValueError("once")

    bus.auth.user_created.listen(fail, listener_name="failing")
    bus.auth.user_created.listen(lambda username: fine.add(username), listener_name="fine")
    await bus.auth.user_created.fire_async(username="ada", email="e")

    with pytest.raises(ValueError, match="once"):
        await Worker(bus).run()
    async with Worker(bus):
        await failing.wait_for(2)

    assert fine.items == ["ada"]


async def test_an_async_handler_that_times_out_is_cancelled_and_retried(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=0.3)
    seen = Seen[str]()
    was_cancelled = asyncio.Event()

    async def welcome(username: str) -> None:
        await seen.add(username)
        if len(seen.items) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                was_cancelled.set()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus) as worker:
        await bus.auth.user_created.fire_async(username="ada", email="e")
        await seen.wait_for(2)
        assert worker.failure is None

    assert was_cancelled.is_set()


async def test_a_sync_handler_that_times_out_keeps_its_concurrency_slot_until_it_ends(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=1)
    release = threading.Event()
    calls: list[str] = []
    loop, called_again = asyncio.get_running_loop(), asyncio.Event()

    def welcome(username: str) -> None:
        calls.append(username)
        if len(calls) == 1:
            release.wait(1.5)
        else:
            loop.call_soon_threadsafe(called_again.set)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus) as worker:
        started = time.monotonic()
        await bus.auth.user_created.fire_async(username="ada", email="e")
        async with asyncio.timeout(10):
            await called_again.wait()
        assert worker.failure is None

    assert calls == ["ada", "ada"]
    assert time.monotonic() - started >= 1.5


async def test_timeouts_are_counted_and_end_in_a_dead_letter(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=0.3, max_attempts=2)

    async def welcome(username: str) -> None:
        await asyncio.Event().wait()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus) as worker:
        await bus.auth.user_created.fire_async(username="ada", email="e")
        letter = await broker.wait_for_message(DEAD)
        assert worker.failure is None

    headers = headers_of(letter)
    assert headers["lightbus-error-type"] == "lightbus.exceptions.HandlerTimeout"
    assert headers["lightbus-attempt"] == 2


async def test_the_seeds_handler_that_asks_for_too_much_fails_with_a_clear_message(
    make_bus: MakeBus, rabbitmq_url: str, broker: Broker
) -> None:
    auth = make_bus(service_name="auth_service")
    other = make_bus(apis=())

    def handle_deleted(username: str, email: str) -> None:
        raise AssertionError("never called")

    other.auth.user_deleted.listen(
        handle_deleted, listener_name="user_deleted", on_error=KEEP_GOING
    )
    async with Worker(other):
        await auth.auth.user_deleted.fire_async(username="ada")
        letter = await broker.wait_for_message(DEAD)

    assert headers_of(letter)["lightbus-error-message"] == (
        "handle_deleted() requires 'email', which event auth.user_deleted does not have; "
        "it has 'username'."
    )


async def test_a_listener_that_retries_backs_off_with_delays_at_the_broker(
    make_bus: MakeBus, broker: Broker
) -> None:
    retry = {"first": 0.2, "factor": 3, "longest": 0.6}
    bus = make_bus(retry=retry, max_attempts=4)
    seen = Seen[float]()

    async def fail(username: str) -> None:
        await seen.add(time.monotonic())
        raise LookupError(username)

    bus.auth.user_created.listen(fail, listener_name="welcome", on_error=OnError.RETRY)
    await bus.auth.user_created.fire_async(username="ada", email="e")
    async with Worker(bus):
        first, *_ = await seen.wait_for(1)
    # Without a worker, the event waits at the broker, and returns to its queue.
    await broker.wait_for_count(QUEUE, 1)

    async with Worker(bus) as worker:
        at = await seen.wait_for(4)
        dead = await broker.wait_for_message(DEAD)
        assert worker.failure is None

    assert at[0] == first
    assert at[2] - at[1] >= 0.45
    assert at[3] - at[2] >= 0.45
    assert headers_of(dead)["lightbus-attempt"] == 4
