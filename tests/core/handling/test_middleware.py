"""Middleware: code around the sending and the handling of events."""

from __future__ import annotations

import threading

import attrs
import pytest

from core.apis import AuthApi
from core.support import Broken, MakeBus, Received, eventually
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.exceptions import ApiError, HandlerExited
from lightbus.handling.middleware import Handle, Middleware, Send, run_on_handler_thread


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(AuthApi)


class Noting(Middleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self._name = name
        self._notes = notes

    async def send(self, message: EventMessage, call_next: Send) -> None:
        self._notes.append(f"{self._name} sends {message.event_name}")
        await call_next(attrs.evolve(message, service_name=f"{message.service_name}+{self._name}"))
        self._notes.append(f"{self._name} has sent")

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        self._notes.append(f"{self._name} handles for {listener_name}")
        await call_next()
        self._notes.append(f"{self._name} has handled")


async def test_the_middleware_that_was_added_first_is_outermost(
    bus: Bus, received: Received
) -> None:
    notes: list[str] = []
    for name in ("outer", "inner"):
        bus.client.add_middleware(Noting(name, notes))
    bus.client.before_event_sent(lambda event_message: notes.append("hook before sending"))
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")

    async with Worker(bus):
        message = await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"

    assert message.service_name == "shop+outer+inner"
    sent = ["outer sends user_deleted", "inner sends user_deleted", "hook before sending"]
    assert [note for note in notes if "handle" not in note] == [
        *sent,
        "inner has sent",
        "outer has sent",
    ]
    assert [note for note in notes if "handle" in note] == [
        "outer handles for gather",
        "inner handles for gather",
        "inner has handled",
        "outer has handled",
    ]


def test_a_blocking_fire_returns_the_message_as_it_was_sent(bus: Bus) -> None:
    bus.client.add_middleware(Noting("outer", []))
    assert bus.auth.user_deleted.fire(username="ann").service_name == "shop+outer"


async def test_an_error_of_a_middleware_counts_as_one_of_the_handler(
    bus: Bus, received: Received
) -> None:
    class Failing(Middleware):
        async def handle(
            self, message: EventMessage, listener_name: str, call_next: Handle
        ) -> None:
            await call_next()
            raise Broken

    bus.client.add_middleware(Failing())
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    assert await received.next() == "ann"
    await worker.stop()
    assert isinstance(worker.failure, Broken)


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
async def test_a_middleware_that_exits_counts_as_a_handler_that_exits(
    bus: Bus, raised: BaseException
) -> None:
    class Exiting(Middleware):
        async def handle(
            self, message: EventMessage, listener_name: str, call_next: Handle
        ) -> None:
            raise raised

    bus.client.add_middleware(Exiting())
    bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_deleted.fire_async(username="ann")
    await eventually(lambda: worker.failure)
    await worker.stop()
    assert isinstance(worker.failure, HandlerExited)


async def test_an_error_of_a_middleware_is_logged_after_the_event_is_stored(
    bus: Bus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Middleware):
        async def send(self, message: EventMessage, call_next: Send) -> None:
            await call_next(message)
            raise Broken

    bus.client.add_middleware(Failing())
    bus.auth.user_deleted.listen(received.add_name, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next() == "ann"
    assert "Middleware failed after the event was stored." in caplog.text


local = threading.local()


class Tenancy(Middleware):
    """Has the handler's thread know something."""

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        await run_on_handler_thread(lambda: setattr(local, "tenant", "acme"))
        try:
            await call_next()
        finally:
            await run_on_handler_thread(lambda: delattr(local, "tenant"))


async def test_a_middleware_runs_code_on_the_thread_of_a_handler_even_if_that_fails(
    bus: Bus, received: Received
) -> None:
    bus.client.add_middleware(Tenancy())

    def handle(username: str) -> None:
        received.add(local.tenant)
        raise Broken

    bus.auth.user_deleted.listen(
        handle, listener_name="gather", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await bus.auth.user_deleted.fire_async(username="bob")

        assert await received.next_ones(2) == ["acme", "acme"]


async def test_a_middleware_around_an_async_handler_shares_a_thread_with_the_sync_hooks(
    bus: Bus, received: Received
) -> None:
    bus.client.add_middleware(Tenancy())
    bus.client.before_event_execution(lambda: received.add(local.tenant))

    async def handle(username: str) -> None: ...

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")

        assert await received.next() == "acme"


async def test_code_that_would_wait_for_the_thread_of_a_handler_is_refused_at_once(
    bus: Bus, received: Received
) -> None:
    raised: list[BaseException] = []

    async def run_there() -> None:
        try:
            await run_on_handler_thread(lambda: None)
        except ApiError as error:
            raised.append(error)

    await run_there()
    assert len(raised) == 1

    bus.client.before_event_sent(run_there)

    def handle(username: str) -> None:
        if username == "ann":
            bus.auth.user_deleted.fire(username="bob")
        received.add(username)

    bus.auth.user_deleted.listen(handle, listener_name="gather")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        assert await received.next_ones(2) == ["ann", "bob"]

    assert len(raised) == 3
