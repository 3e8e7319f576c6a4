"""Hooks: when they are called, and with what."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, Token
from typing import Any

import pytest

from core.apis import AuditApi, AuthApi
from core.support import PATIENCE, MakeBus, Received, eventually, names
from lightbus import Bus, EventMessage, Worker
from lightbus.client import BusClient
from lightbus.exceptions import CallbackExited, HandlerTimeout
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
    return names(list(iter(queue.take, None)))


async def test_a_decorator_works_with_and_without_parentheses_and_leaves_the_function() -> None:
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


async def test_a_hook_is_given_only_what_it_names() -> None:
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


async def test_what_a_sync_hook_returns_is_awaited_where_it_can_be() -> None:
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


async def test_hooks_around_a_handler_are_told_the_event_and_the_listener(
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


async def test_what_a_hook_before_sending_raises_is_raised_and_nothing_is_sent(
    bus: Bus, broker: Broker
) -> None:
    @bus.client.before_event_sent()
    def refuse() -> None:
        raise PermissionError("not today")

    with pytest.raises(PermissionError, match="not today"):
        await bus.auth.user_deleted.fire_async(username="ann")

    assert waiting(bus, broker) == []


async def test_what_a_hook_after_sending_raises_is_logged_for_the_event_is_stored(
    bus: Bus, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    @bus.client.after_event_sent()
    async def fails() -> None:
        raise ValueError("no metrics")

    message = await bus.auth.user_deleted.fire_async(username="ann")

    assert waiting(bus, broker) == ["ann"]
    assert message.id in caplog.text
    assert "no metrics" in caplog.text


# Context variables and threads

tenant: ContextVar[str] = ContextVar("tenant", default="none")


async def seen_by_handler(bus: Bus, received: Received, handler: Any) -> Any:
    """Fire an event; return what its handler adds."""
    bus.auth.user_deleted.listen(handler, listener_name="sees")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        return await received.next()


@pytest.mark.parametrize("is_async_handler", [True, False])
@pytest.mark.parametrize("is_async_hook", [True, False])
async def test_a_handler_and_later_hooks_see_the_context_variables_that_a_hook_sets(
    make_bus: MakeBus, received: Received, *, is_async_hook: bool, is_async_handler: bool
) -> None:
    bus = make_bus()
    seen: list[str] = []

    def set_tenant() -> None:
        tenant.set("acme")

    async def set_tenant_async() -> None:
        tenant.set("acme")

    async def note_async() -> None:
        seen.append(tenant.get())

    bus.client.before_event_execution(set_tenant_async if is_async_hook else set_tenant)
    for moment in (bus.client.before_event_execution, bus.client.after_event_execution):
        moment(note_async)
        moment(lambda: seen.append(tenant.get()))
    bus.client.after_event_execution(lambda: received.add(seen))

    def handle(username: str) -> None:
        seen.append(f"handler: {tenant.get()}")

    async def handle_async(username: str) -> None:
        handle(username)

    handler = handle_async if is_async_handler else handle
    assert await seen_by_handler(bus, received, handler) == [
        *["acme"] * 2,
        "handler: acme",
        *["acme"] * 2,
    ]
    assert tenant.get() == "none"


async def test_what_a_handler_sets_in_a_context_variable_reaches_no_other_event(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()

    def handle(username: str) -> None:
        received.add(tenant.get())
        tenant.set(username)

    bus.auth.user_deleted.listen(handle, listener_name="sets")
    async with Worker(bus):
        for _ in range(2):
            await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next_ones(2) == ["none", "none"]


async def test_a_sync_hook_can_reset_what_another_one_has_set(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    tokens: list[Token[str]] = []

    @bus.client.before_event_execution()
    def enter() -> None:
        tokens.append(tenant.set("acme"))

    @bus.client.after_event_execution()
    def leave() -> None:
        tenant.reset(tokens.pop())
        received.add(tenant.get())

    assert await seen_by_handler(bus, received, lambda username: None) == "none"


async def test_the_sync_hooks_of_an_event_run_on_the_thread_of_its_sync_handler(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())

    async def be_between() -> None:
        assert threading.get_ident() not in threads

    for moment in (bus.client.before_event_execution, bus.client.after_event_execution):
        moment(note)
        moment(be_between)
        moment(note)
    bus.client.after_event_execution(lambda: received.add(threads))

    seen = await seen_by_handler(bus, received, lambda username: note())

    assert len(seen) == 5
    assert len(set(seen)) == 1


async def test_events_that_are_handled_at_once_have_threads_of_their_own(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus()
    together = threading.Barrier(3, timeout=PATIENCE)
    hook_threads: dict[str, int] = {}

    @bus.client.before_event_execution()
    def note(event_message: EventMessage) -> None:
        hook_threads[event_message.kwargs["username"]] = threading.get_ident()
        together.wait()

    def handle(username: str) -> None:
        received.add((username, hook_threads[username] == threading.get_ident()))

    bus.auth.user_deleted.listen(handle, listener_name="three", concurrency=3)
    async with Worker(bus):
        for username in "abc":
            await bus.auth.user_deleted.fire_async(username=username)
        handled = await received.next_ones(3)

    assert sorted(handled) == [("a", True), ("b", True), ("c", True)]
    assert len(set(hook_threads.values())) == 3


async def test_a_sync_hook_on_the_thread_of_a_handler_can_fire(
    make_bus: MakeBus, received: Received
) -> None:
    bus = make_bus(AuthApi, AuditApi)
    bus.client.before_event_sent(lambda: None)

    @bus.client.before_event_execution()
    def audit(event_message: EventMessage) -> None:
        bus.audit.anything.fire(what=event_message.event_name)

    assert await seen_by_handler(bus, received, received.add_name) == "ann"


# Late hooks


@pytest.mark.parametrize("is_async_handler", [True, False])
@pytest.mark.parametrize("moment", ["before_event_execution", "after_event_execution"])
async def test_a_sync_hook_that_does_not_end_counts_as_a_stuck_handler(
    make_bus: MakeBus, moment: str, *, is_async_handler: bool
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1, shutdown_timeout=0.1)
    is_over = threading.Event()
    getattr(bus.client, moment)(lambda: is_over.wait(4 * PATIENCE))

    async def handle(username: str) -> None: ...

    bus.auth.user_deleted.listen(
        handle if is_async_handler else lambda username: None, listener_name="gather"
    )
    worker = Worker(bus)
    await worker.start()
    for username in ("ann", "bob"):
        await bus.auth.user_deleted.fire_async(username=username)
    try:
        await eventually(lambda: worker.failure)
        assert isinstance(worker.failure, HandlerTimeout)
        assert worker.unfinished >= 1
        await worker.stop()
        assert worker.unfinished >= 1
    finally:
        is_over.set()


async def test_an_async_hook_that_does_not_end_counts_as_a_stuck_handler(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=0.1)
    is_over = asyncio.Event()

    @bus.client.before_event_execution()
    async def refuse_to_end() -> None:
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await is_over.wait()

    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    await eventually(lambda: worker.failure)

    assert isinstance(worker.failure, HandlerTimeout)
    assert worker.unfinished >= 1
    is_over.set()
    await worker.stop()
    assert worker.unfinished == 0


async def test_an_on_start_hook_that_does_not_end_does_not_keep_a_worker_from_stopping(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus.worker.worker.CLEAN_UP_TIMEOUT", 0.1)
    bus = make_bus()
    has_begun, is_over = asyncio.Event(), asyncio.Event()

    @bus.client.on_start()
    async def refuse_to_end() -> None:
        has_begun.set()
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await is_over.wait()

    worker = Worker(bus)
    starting = asyncio.create_task(worker.start())
    await has_begun.wait()
    async with asyncio.timeout(PATIENCE):
        await worker.stop()

    assert worker.unfinished == 1
    is_over.set()
    await starting
