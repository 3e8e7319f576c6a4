"""The threads and context variables of hooks, and hooks that do not end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import ContextVar, Token
from typing import Any

import pytest

from core.apis import AuditApi, AuthApi
from core.support import PATIENCE, MakeBus, Received, eventually
from lightbus import Bus, EventMessage, Worker
from lightbus.exceptions import HandlerTimeout


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with a listener, for which the broker keeps what is fired."""
    bus = make_bus()
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    return bus


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


async def test_a_context_variable_that_a_handler_sets_affects_no_other_event(
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


async def test_a_sync_hook_can_reset_a_variable_that_another_one_set(
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


async def test_events_that_are_handled_at_once_have_their_own_threads(
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


async def test_a_worker_stops_while_an_on_start_hook_does_not_end(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus.worker.worker.CLEAN_UP_TIMEOUT", 0.1)
    bus = make_bus()
    has_started, is_over = asyncio.Event(), asyncio.Event()

    @bus.client.on_start()
    async def refuse_to_end() -> None:
        has_started.set()
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await is_over.wait()

    worker = Worker(bus)
    starting = asyncio.create_task(worker.start())
    await has_started.wait()
    async with asyncio.timeout(PATIENCE):
        await worker.stop()

    assert worker.unfinished == 1
    is_over.set()
    await starting
