"""Hooks: when they are called, and with what."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.apis import AuditApi
from core.support import PATIENCE, MakeBus, Received, names
from lightbus import Bus, EventMessage, Worker
from lightbus.client import BusClient
from lightbus.exceptions import CallbackExited
from lightbus.handling.hooks import Hooks
from lightbus_memory.broker import Broker


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with a listener, for which the broker keeps what is fired."""
    bus = make_bus()
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    return bus


def waiting(bus: Bus, broker: Broker) -> list[str]:
    """Take the events that wait for the listener of `bus`."""
    (listener,) = bus.client.listeners
    queue = broker.declare(listener.subscription("shop"))
    return names(list(iter(queue.get, None)))


async def test_a_decorator_works_with_and_without_parentheses_and_returns_the_function() -> None:
    hooks, called = Hooks(), []

    @hooks
    def plain() -> None:
        called.append("plain")

    @hooks()
    async def with_parentheses() -> None:
        called.append("with")

    await hooks.run()

    assert called == ["plain", "with"]
    plain()
    await with_parentheses()
    assert called == ["plain", "with"] * 2


async def test_a_hook_receives_only_the_arguments_that_it_names() -> None:
    hooks = Hooks()
    given: dict[str, Any] = {}
    hooks(lambda: given.update(nothing=()))
    hooks(lambda b: given.update(one=b))
    hooks(lambda **all_of_them: given.update(every=all_of_them))

    await hooks.run(a=1, b=2)

    assert given == {"nothing": (), "one": 2, "every": {"a": 1, "b": 2}}


async def test_a_sync_hook_does_not_run_on_the_loop() -> None:
    hooks, threads = Hooks(), []
    hooks(lambda: threads.append(threading.current_thread()))

    await hooks.run()

    assert threads != [threading.current_thread()]


async def test_an_awaitable_that_a_sync_hook_returns_is_awaited() -> None:
    hooks, done = Hooks(), asyncio.Event()

    async def later() -> None:
        done.set()

    hooks(lambda: later())
    await hooks.run()

    assert done.is_set()


async def test_a_hook_that_raises_stop_iteration_does_not_hang() -> None:
    hooks = Hooks()
    nothing: Iterator[str] = iter(())
    hooks(lambda: next(nothing))

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await hooks.run()


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_hook_that_would_end_the_process_has_failed(*, is_async: bool) -> None:
    hooks = Hooks()

    async def leave_async() -> None:
        raise SystemExit(3)

    hooks(leave_async if is_async else lambda: sys.exit(3))

    with pytest.raises(CallbackExited, match="raised SystemExit: 3"):
        await hooks.run()


def test_sync_hooks_that_fire_do_not_wait_for_each_other(bus: Bus) -> None:
    bus.client.register_api(AuditApi)

    def audit(event_message: EventMessage) -> None:
        if event_message.api_name == "auth":
            bus.audit.anything.fire(what=event_message.event_name)

    bus.client.before_event_sent(audit)
    with ThreadPoolExecutor(50) as threads:
        fired = [
            threads.submit(bus.auth.user_deleted.fire, username=str(number)) for number in range(50)
        ]
        for one in fired:
            one.result(timeout=PATIENCE)
    bus.client.close()


async def test_hooks_are_called_in_the_order_of_an_events_life(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(lambda username: received.add("handled"), listener_name="gather")
    for moment in (
        "on_start",
        "before_event_sent",
        "after_event_sent",
        "before_event_execution",
        "after_event_execution",
        "on_stop",
    ):
        getattr(bus.client, moment)(lambda moment=moment: received.add(moment))

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        first = await received.next_ones(6)

    # Sending and handling go on side by side.
    assert [moment for moment in first if "sent" not in moment] == [
        "on_start",
        "before_event_execution",
        "handled",
        "after_event_execution",
    ]
    assert [moment for moment in first if "sent" in moment] == [
        "before_event_sent",
        "after_event_sent",
    ]
    assert await received.next() == "on_stop"


async def test_hooks_around_a_handler_receive_the_event_and_the_listener(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")

    @bus.client.before_event_execution()
    def note(client: BusClient, event_message: EventMessage, listener_name: str) -> None:
        received.add((client is bus.client, event_message.kwargs["username"], listener_name))

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == (True, "ann", "gather")


async def test_an_error_of_a_hook_before_sending_is_raised_and_nothing_is_sent(
    bus: Bus, broker: Broker
) -> None:
    @bus.client.before_event_sent()
    def refuse() -> None:
        raise PermissionError("not today")

    with pytest.raises(PermissionError, match="not today"):
        await bus.auth.user_deleted.fire_async(username="ann")

    assert waiting(bus, broker) == []


async def test_an_error_of_a_hook_after_sending_is_logged(
    bus: Bus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    @bus.client.after_event_sent()
    async def fails() -> None:
        raise ValueError("no metrics")

    message = await bus.auth.user_deleted.fire_async(username="ann")

    assert waiting(bus, broker) == ["ann"]
    assert message.id in caplog.text
    assert "no metrics" in caplog.text
