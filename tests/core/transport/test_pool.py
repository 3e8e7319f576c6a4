"""Which connections belong to which event loop, thread and process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import sys
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from core.apis import AuditApi, AuthApi
from core.support import PATIENCE, MakeBus, ignore, names, take_waiting
from lightbus import Bus, Worker
from lightbus.exceptions import ApiError, TransportClosed
from lightbus.handling.middleware import Middleware
from lightbus.transport.contract import EventTransport
from lightbus.transport.pool import new_event_loop
from lightbus_memory.broker import Broker


def test_a_new_event_loop_is_one_of_uvloop_where_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_installed = importlib.util.find_spec("uvloop") is not None
    with contextlib.closing(new_event_loop()) as loop:
        assert type(loop).__module__.startswith("uvloop") == is_installed

    monkeypatch.setitem(sys.modules, "uvloop", None)
    with contextlib.closing(new_event_loop()) as loop:
        assert type(loop).__module__.startswith("asyncio")


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with a listener, for which the broker keeps what is fired."""
    bus = make_bus(AuthApi, AuditApi)
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    return bus


async def transport_of(bus: Bus, api_name: str = "auth") -> EventTransport:
    return bus.client.transports.transport(api_name).transport


def test_a_bus_works_in_a_second_asyncio_run(bus: Bus, broker: Broker) -> None:
    for username in ("ann", "bob", "cid"):
        asyncio.run(bus.auth.user_deleted.fire_async(username=username))

    assert names(take_waiting(broker, bus)) == ["ann", "bob", "cid"]


def test_a_bus_that_was_made_inside_a_loop_works_outside_it(
    make_bus: MakeBus, broker: Broker
) -> None:
    async def make() -> Bus:
        return make_bus()

    bus = asyncio.run(make())
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    bus.auth.user_deleted.fire(username="ann")

    assert names(take_waiting(broker, bus)) == ["ann"]


def test_each_loop_has_its_own_transport(bus: Bus) -> None:
    one, other = asyncio.run(transport_of(bus)), asyncio.run(transport_of(bus))

    assert one is not other


async def test_one_loop_has_one_transport(bus: Bus) -> None:
    assert await transport_of(bus) is await transport_of(bus)


def test_the_transports_of_ended_loops_are_freed(bus: Bus) -> None:
    ended = weakref.ref(asyncio.run(transport_of(bus)))
    asyncio.run(transport_of(bus))
    gc.collect()

    assert ended() is None


def awaited_without_asyncio(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Await it as another framework would, up to its first wait."""
    with contextlib.closing(coroutine):
        coroutine.send(None)


@pytest.mark.parametrize("has_hook", [True, False])
@pytest.mark.parametrize("has_middleware", [True, False])
def test_awaiting_without_an_event_loop_of_asyncio_raises_an_error_with_the_remedy(
    bus: Bus, *, has_hook: bool, has_middleware: bool
) -> None:
    called: list[str] = []
    if has_hook:
        bus.client.before_event_sent(lambda: called.append("hook"))
    if has_middleware:
        bus.client.add_middleware(Middleware())
    worker = Worker(bus)

    for coroutine in (
        bus.auth.user_deleted.fire_async(username="ann"),
        bus.client.close_async(),
        worker.start(),
        worker.run(),
    ):
        with pytest.raises(ApiError, match=r"asyncio event loop.* fire\(\) in a thread"):
            awaited_without_asyncio(coroutine)
    assert called == []


async def test_a_bus_can_be_closed_twice(bus: Bus) -> None:
    await bus.auth.user_deleted.fire_async(username="ann")

    await bus.client.close_async()
    await bus.client.close_async()


def test_a_bus_can_be_closed_twice_by_a_blocking_call(bus: Bus) -> None:
    bus.auth.user_deleted.fire(username="ann")

    bus.client.close()
    bus.client.close()


async def test_a_bus_that_was_never_used_can_be_closed(make_bus: MakeBus) -> None:
    await make_bus().client.close_async()


async def test_ten_can_close_a_bus_at_once(bus: Bus) -> None:
    await bus.auth.user_deleted.fire_async(username="ann")

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(bus.client.close_async() for _ in range(10)))


def test_ten_threads_can_close_a_bus_at_once(bus: Bus) -> None:
    bus.auth.user_deleted.fire(username="ann")

    with ThreadPoolExecutor(10) as threads:
        for closing in [threads.submit(bus.client.close) for _ in range(10)]:
            closing.result(timeout=PATIENCE)


async def test_a_closed_bus_opens_again_when_it_is_used(bus: Bus, broker: Broker) -> None:
    before = await transport_of(bus)
    await bus.client.close_async()

    await bus.auth.user_deleted.fire_async(username="ann")
    await asyncio.to_thread(bus.auth.user_deleted.fire, username="bob")

    assert await transport_of(bus) is not before
    assert names(take_waiting(broker, bus)) == ["ann", "bob"]


def test_closing_ends_the_background_thread(bus: Bus) -> None:
    bus.auth.user_deleted.fire(username="ann")
    (background,) = [thread for thread in threading.enumerate() if thread.name == "lightbus"]

    bus.client.close()

    background.join(PATIENCE)
    assert not background.is_alive()


def test_closing_the_bus_ends_a_running_call_with_an_error(bus: Bus) -> None:
    has_started = threading.Event()

    @bus.client.before_event_sent()
    async def never_ends() -> None:
        has_started.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        firing = threads.submit(bus.auth.user_deleted.fire, username="ann")
        assert has_started.wait(PATIENCE)
        bus.client.close()

        with pytest.raises(TransportClosed, match="closed during this call"):
            firing.result(PATIENCE)


def test_while_the_bus_closes_again_and_again_each_fire_succeeds_or_raises(
    bus: Bus, broker: Broker
) -> None:
    is_over = threading.Event()

    def fire_on() -> list[str]:
        fired = []
        while not is_over.is_set():
            with contextlib.suppress(TransportClosed):
                fired.append(bus.auth.user_deleted.fire(username="ann").id)
        return fired

    with ThreadPoolExecutor(4) as threads:
        firing = [threads.submit(fire_on) for _ in range(4)]
        try:
            for _ in range(200):
                bus.client.close()
        finally:
            is_over.set()
        fired = [event_id for thread in firing for event_id in thread.result(PATIENCE)]

    stored = {entry.message.id for entry in take_waiting(broker, bus)}
    assert fired
    assert stored.issuperset(fired)
