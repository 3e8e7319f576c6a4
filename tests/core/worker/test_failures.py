"""Failing handlers, and events that no handler can receive."""

from __future__ import annotations

import asyncio
import logging
import sys
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
    fields_of,
    names,
    next_delay,
    raise_broken,
    take_waiting,
)
from lightbus import EventMessage, OnError, Worker
from lightbus.exceptions import HandlerExited
from lightbus_memory.broker import Broker


async def test_an_acknowledged_failure_leaves_a_dead_letter_and_the_next_event_is_handled(
    make_bus: MakeBus, broker: Broker, received: Received
) -> None:
    bus = make_bus()

    async def fails_for_ann(username: str) -> None:
        if username == "ann":
            raise Broken(f"no {username} here")
        received.add(username)

    bus.auth.user_deleted.listen(
        fails_for_ann, listener_name="picky", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

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
    bus.auth.user_deleted.listen(
        raise_broken, listener_name="fails", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    async with Worker(bus):
        fired = await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))

    assert [letter.message.id for letter in broker.dead_letters("shop")] == [fired.id]


@pytest.mark.parametrize("on_error", OnError)
async def test_the_log_of_a_failure_names_the_event_listener_and_attempt_with_the_traceback(
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
async def test_no_exception_of_a_handler_affects_another_event_or_listener(
    make_bus: MakeBus, broker: Broker, received: Received, handler: Callable[..., Any]
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(handler, listener_name="odd", on_error=OnError.ACKNOWLEDGE_AND_LOG)
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")

        assert await received.next_ones(2) == ["ann", "bob"]
        await eventually(lambda: len(broker.dead_letters("shop")) == 2)

    assert names(broker.dead_letters("shop")) == ["ann", "bob"]
    assert all(msgspec.json.encode(letter.failure) for letter in broker.dead_letters("shop"))


@pytest.mark.parametrize("handler", [exit_sync, exit_async, cancel_sync, cancel_async])
async def test_a_handler_that_exits_shuts_down_a_strict_worker_and_its_event_is_retried(
    make_bus: MakeBus, broker: Broker, handler: Callable[..., Any]
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(handler, listener_name="odd")
    await bus.auth.user_deleted.fire_async(username="ann")

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(HandlerExited, match="Listener 'odd' raised"):
            await Worker(bus).run()

    assert next_delay(broker, bus) is not None


async def test_a_body_that_is_not_a_json_object_is_dead_lettered_at_once(
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


async def test_a_field_that_the_handler_requires_and_the_event_has_not_is_named(
    make_bus: MakeBus, broker: Broker
) -> None:
    listening, sending = make_bus(AuditApi), make_bus(AuthApi)

    def handle(username: str, email: str) -> None:
        pytest.fail("it must not be called")

    listening.auth.user_deleted.listen(
        handle, listener_name="wants-more", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    async with Worker(listening):
        await sending.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))

    (letter,) = broker.dead_letters("shop")
    assert "handle() requires 'email'" in letter.failure.error_message
    assert "auth.user_deleted" in letter.failure.error_message


async def test_an_event_that_does_not_fit_the_hints_of_a_handler_is_dead_lettered_at_once(
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


async def test_an_event_that_its_listener_no_longer_listens_for_is_dead_lettered(
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
    assert letter.failure.error_type == "lightbus.exceptions.NotListenedFor"
    assert letter.message.canonical_name == "auth.user_created"
