"""The handling of one delivery."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from core.support import (
    Broken,
    MakeBus,
    Received,
    next_delay,
    take_waiting,
)
from lightbus import OnError, Worker
from lightbus_memory.broker import Broker


async def test_a_handled_event_is_acknowledged(
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


async def test_no_log_line_shows_the_parameters_of_an_event(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, received: Received
) -> None:
    caplog.set_level(logging.DEBUG)
    bus = make_bus()

    def fails(username: str) -> None:
        received.add(username)
        raise Broken

    bus.auth.user_deleted.listen(fails, listener_name="fails", on_error=OnError.ACKNOWLEDGE_AND_LOG)

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


async def test_many_ready_events_do_not_block_other_tasks(
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


async def test_a_context_variable_of_one_event_does_not_reach_the_next(
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
