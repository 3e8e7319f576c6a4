"""One delivery through one handler: what counts as failed, and what becomes of the event then."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from core.apis import AuditApi, AuthApi
from core.support import (
    PATIENCE,
    Broken,
    MakeBus,
    Received,
    eventually,
    names,
    next_delay,
    take_waiting,
)
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.exceptions import HandlerExited
from lightbus.transport.failure import Failure
from lightbus_memory import MemoryTransport
from lightbus_memory.broker import Broker
from lightbus_memory.transport import MemorySettings

CARRY_ON = OnError.ACKNOWLEDGE_AND_LOG


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that Lightbus gave a log record; none for another library's."""
    fields: dict[str, Any] = getattr(record, "lightbus", {})
    return fields


async def raise_broken(username: str) -> None:
    raise Broken(username)


async def test_a_handled_event_is_gone(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await received.next()

    assert take_waiting(broker, bus) == []
    assert next_delay(broker, bus) is None
    assert broker.dead_letters("shop") == []


async def test_a_failure_that_is_acknowledged_leaves_a_dead_letter_and_the_next_event_is_handled(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()

    async def fails_for_ann(username: str) -> None:
        if username == "ann":
            raise Broken(f"no {username} here")
        received.add(username)

    bus.auth.user_deleted.listen(fails_for_ann, listener_name="picky", on_error=CARRY_ON)

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")
        assert await received.next() == "bob"

    (letter,) = broker.dead_letters("shop")
    assert letter.message.kwargs == {"username": "ann"}
    assert letter.failure.error_type == "core.support.Broken"
    assert letter.failure.error_message == "no ann here"
    assert "fails_for_ann" in letter.failure.traceback
    assert (letter.failure.listener, letter.failure.attempt) == ("picky", 1)
    assert letter.failure.service_name == "shop"
    assert take_waiting(broker, bus) == []


async def test_a_dead_letter_keeps_the_id_of_its_event(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails", on_error=CARRY_ON)

    async with Worker(bus):
        fired = await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))

    assert [letter.message.id for letter in broker.dead_letters("shop")] == [fired.id]


@pytest.mark.parametrize("on_error", OnError)
async def test_the_log_of_a_failure_says_which_event_listener_and_attempt_and_shows_the_traceback(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, on_error: OnError
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(raise_broken, listener_name="fails", on_error=on_error)

    worker = Worker(bus)
    await worker.start()
    fired = await bus.auth.user_deleted.fire_async(username="ann")
    await eventually(lambda: caplog.records)
    await worker.stop()

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    fields = fields_of(record)
    assert (fields["event_id"], fields["api"], fields["event_name"]) == (
        fired.id,
        "auth",
        "user_deleted",
    )
    assert (fields["listener"], fields["attempt"]) == ("fails", 1)
    assert fired.id in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], Broken)


async def test_no_log_line_shows_what_the_event_carries(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, received: Received
) -> None:
    caplog.set_level(logging.DEBUG)
    bus = make_bus()

    def fails(username: str) -> None:
        received.add(username)
        raise Broken

    bus.auth.user_deleted.listen(fails, listener_name="fails", on_error=CARRY_ON)

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="hunter2")
        await received.next()

    assert "hunter2" not in caplog.text


async def test_an_async_handler_behind_a_sync_decorator_is_awaited(
    make_bus: MakeBus, received: Received
) -> None:
    def decorated(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return handler(*args, **kwargs)

        return wrapper

    @decorated
    async def handle(username: str) -> None:
        await asyncio.sleep(0)
        received.add(username)

    bus = make_bus()
    bus.auth.user_deleted.listen(handle, listener_name="decorated")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next() == "ann"


async def test_an_async_handler_runs_on_the_loop_of_the_worker_and_a_sync_one_does_not(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    async def on_loop(username: str) -> None:
        received.add(("async", threading.current_thread() is threading.main_thread()))

    def in_thread(username: str) -> None:
        received.add(("sync", threading.current_thread() is threading.main_thread()))

    bus.auth.user_deleted.listen(on_loop, listener_name="async")
    bus.auth.user_deleted.listen(in_thread, listener_name="sync")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert sorted(await received.next_ones(2)) == [("async", True), ("sync", False)]


def exit_sync(username: str) -> None:
    sys.exit(3)


async def exit_async(username: str) -> None:
    sys.exit(3)


def interrupt_sync(username: str) -> None:
    raise KeyboardInterrupt


async def interrupt_async(username: str) -> None:
    raise KeyboardInterrupt


def cancel_sync(username: str) -> None:
    raise asyncio.CancelledError


async def cancel_async(username: str) -> None:
    raise asyncio.CancelledError


async def cancel_itself(username: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def stop_iteration_sync(username: str) -> None:
    nothing: Iterator[str] = iter(())
    next(nothing)


async def stop_iteration_async(username: str) -> None:
    nothing: Iterator[str] = iter(())
    next(nothing)


def generator_exit_sync(username: str) -> None:
    raise GeneratorExit


class NotPrintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for this one")


def not_printable(username: str) -> None:
    raise NotPrintable


class NotesNotPrintable(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise ValueError("no notes for this one")


def name_not_encodable(username: str) -> None:
    raise type("Odd", (Exception,), {"__qualname__": "Odd\ud800"})


def several(username: str) -> None:
    raise ExceptionGroup("several", [ValueError("one"), ValueError("two")])


def recurse(username: str) -> None:
    recurse(username)


ODD_HANDLERS: list[Callable[..., Any]] = [
    exit_sync,
    exit_async,
    interrupt_sync,
    interrupt_async,
    cancel_sync,
    cancel_async,
    cancel_itself,
    stop_iteration_sync,
    stop_iteration_async,
    generator_exit_sync,
    not_printable,
    name_not_encodable,
    several,
    recurse,
]


@pytest.mark.parametrize("handler", ODD_HANDLERS)
async def test_whatever_a_handler_raises_harms_no_other_event_and_no_other_listener(
    make_bus: MakeBus, broker: Broker, received: Received, handler: Callable[..., Any]
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(handler, listener_name="odd", on_error=CARRY_ON)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")

        assert await received.next_ones(2) == ["ann", "bob"]
        await eventually(lambda: len(broker.dead_letters("shop")) == 2)

    assert names(broker.dead_letters("shop")) == ["ann", "bob"]
    assert all(msgspec.json.encode(letter.failure) for letter in broker.dead_letters("shop"))


@pytest.mark.parametrize("raised", [NotPrintable, NotesNotPrintable])
def test_what_an_exception_fails_to_tell_of_itself_is_told_to_be_missing(
    raised: type[Exception],
) -> None:
    with pytest.raises(raised) as caught:
        raise raised

    failure = Failure.of(
        caught.value, listener="odd", attempt=1, service_name="shop", process_name="p"
    )

    assert failure.error_type == f"core.worker.test_dispatch.{raised.__name__}"
    # From 3.13 on, Python prints something itself in the place of notes.
    assert "ValueError" in failure.error_message + failure.traceback


@pytest.mark.parametrize("handler", [exit_sync, exit_async, cancel_sync, cancel_async])
async def test_a_handler_that_exits_shuts_a_strict_worker_down_and_keeps_the_event(
    make_bus: MakeBus, broker: Broker, handler: Callable[..., Any]
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(handler, listener_name="odd")
    await bus.auth.user_deleted.fire_async(username="ann")

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(HandlerExited, match="Listener 'odd' raised"):
            await Worker(bus).run()

    assert next_delay(broker, bus) is not None


async def test_a_body_that_is_no_json_object_is_a_dead_letter_at_once(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        for body in (b"\xff\xfe", b"[1, 2]", b'{"username": "a', b'{"a":' + b"[" * 50_000):
            await bus.client.fire_async(
                EventMessage(api_name="auth", event_name="user_deleted", body=body)
            )
        await bus.auth.user_deleted.fire_async(username="bob")
        assert await received.next() == "bob"

    letters = broker.dead_letters("shop")
    assert [letter.message.body[:2] for letter in letters] == [b"\xff\xfe", b"[1", b'{"', b'{"']
    assert {letter.failure.attempt for letter in letters} == {1}
    assert {letter.failure.error_type for letter in letters} == {
        "lightbus.exceptions.UndecodableEvent"
    }


async def test_an_event_without_a_field_that_the_handler_requires_fails_by_name(
    make_bus: MakeBus, broker: Broker
) -> None:
    listening, sending = make_bus(AuditApi), make_bus(AuthApi)

    def handle(username: str, email: str) -> None:
        pytest.fail("it must not be called")

    listening.auth.user_deleted.listen(handle, listener_name="wants-more", on_error=CARRY_ON)

    async with Worker(listening):
        await sending.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))

    (letter,) = broker.dead_letters("shop")
    assert "handle() requires 'email'" in letter.failure.error_message
    assert "auth.user_deleted" in letter.failure.error_message


async def test_an_event_that_does_not_fit_a_handlers_hints_is_a_dead_letter_at_once(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(AuthApi)

    def handle(username: int) -> None:
        pytest.fail("it must not be called")

    bus.auth.user_deleted.listen(handle, listener_name="counts")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))
        assert worker.failure is None

    (letter,) = broker.dead_letters("shop")
    assert letter.failure.error_type == "lightbus.exceptions.UnfitEvent"
    assert "at `$.username`" in letter.failure.error_message
    assert letter.failure.attempt == 1


async def test_a_handler_that_takes_too_long_is_cancelled_and_its_event_tried_again(
    make_bus: MakeBus, broker: Broker, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1)

    async def slow_once(username: str) -> None:
        received.add("begun")
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
        assert await received.next_ones(4) == ["begun", "cancelled", "begun", "finished"]

    assert worker.failure is None
    assert "did not finish within its acknowledgement_timeout of 0.1 s" in caplog.text
    assert broker.dead_letters("shop") == []


async def test_a_timeout_counts_as_an_attempt_whatever_on_error_says(
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


async def test_a_sync_handler_that_takes_too_long_is_tried_again_once_its_thread_has_ended(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=0.2)
    running = 0

    def slow_once(username: str) -> None:
        nonlocal running
        running += 1
        received.add(running)
        if not second_try.is_set():
            second_try.set()
            late.wait(0.3)
        running -= 1

    second_try, late = threading.Event(), threading.Event()
    bus.auth.user_deleted.listen(slow_once, listener_name="slow")

    async with Worker(bus) as worker:
        await bus.auth.user_deleted.fire_async(username="ann")
        # It is never run twice at once: one handler at a time, the late one included.
        assert await received.next_ones(2) == [1, 1]

    assert worker.failure is None
    assert take_waiting(broker, bus) == []
    assert broker.dead_letters("shop") == []


async def test_a_late_result_is_ignored(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, max_attempts=1)

    def late(username: str) -> None:
        go_on.wait(0.15)
        received.add(username)

    go_on = threading.Event()
    bus.auth.user_deleted.listen(late, listener_name="late")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"

    assert names(broker.dead_letters("shop")) == ["ann"]


async def test_the_last_attempt_that_fails_is_a_dead_letter_and_the_worker_lives(
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


async def test_after_one_lost_worker_an_event_is_tried_again_at_once(
    make_bus: MakeBus, broker_name: str, received: Received
) -> None:
    bus = make_bus(acknowledgement_timeout=60)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    await bus.auth.user_deleted.fire_async(username="ann")

    await lose_a_worker(broker_name, bus)

    async with Worker(bus):
        assert await received.next() == "ann"


async def test_after_two_lost_workers_an_event_waits_before_the_next_try(
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
    assert (fields_of(warning)["redeliveries"], fields_of(warning)["after"]) == (2, 0.3)


async def test_an_event_that_loses_too_many_workers_is_a_dead_letter_without_another_try(
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


async def test_an_event_that_the_listener_gave_up_listening_for_is_a_dead_letter(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    before, now = make_bus(), make_bus()
    before.client.listen_for_events(
        [("auth", "user_created"), ("auth", "user_deleted")],
        received.add_name,
        listener_name="gather",
    )
    await before.auth.user_created.fire_async(username="ann", email="")
    now.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(now):
        await now.auth.user_deleted.fire_async(username="bob")
        assert await received.next() == "bob"

    (letter,) = broker.dead_letters("shop")
    assert letter.failure.error_type == "lightbus.exceptions.UnexpectedEvent"
    assert letter.message.canonical_name == "auth.user_created"


async def test_events_that_need_not_wait_leave_others_their_turn(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    handled = turns = 0

    async def count(username: str) -> None:
        nonlocal handled
        handled += 1
        if handled == 1000:
            received.add("all")

    async def take_turns() -> None:
        nonlocal turns
        while handled < 1000:
            await asyncio.sleep(0)
            turns += 1

    bus.auth.user_deleted.listen(count, listener_name="count")
    for _ in range(1000):
        await bus.auth.user_deleted.fire_async(username="ann")

    async with Worker(bus):
        await take_turns()
        assert await received.next() == "all"

    assert turns > 20


async def test_a_context_variable_of_one_event_is_not_seen_by_the_next(
    make_bus: MakeBus, received: Received
) -> None:
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")
    bus = make_bus()

    def handle(username: str) -> None:
        received.add(seen.get())
        seen.set(username)

    bus.auth.user_deleted.listen(handle, listener_name="sync")

    async with Worker(bus):
        for username in ("ann", "bob"):
            await bus.auth.user_deleted.fire_async(username=username)

        assert await received.next_ones(2) == ["nothing", "nothing"]
