"""Blocking calls, which run on the event loop of a background thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Self

import pytest

from core.apis import AuditApi, AuthApi
from core.support import PATIENCE, MakeBus, ignore, names, take_waiting
from lightbus import Bus, EventMessage
from lightbus.concurrency import background
from lightbus.exceptions import CallbackExited, CannotBlockHere, TransportClosed
from lightbus.handling.middleware import Middleware, Send
from lightbus.transport import pool
from lightbus_memory.broker import Broker


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus with a listener, for which the broker keeps what is fired."""
    bus = make_bus(AuthApi, AuditApi)
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    return bus


async def test_fire_on_a_running_loop_says_to_use_fire_async(bus: Bus, broker: Broker) -> None:
    with pytest.raises(CannotBlockHere, match=r"fire\(\) would block .* Use `await .*fire_async"):
        bus.auth.user_deleted.fire(username="ann")

    assert take_waiting(broker, bus) == []


async def test_close_on_a_running_loop_says_to_use_close_async(bus: Bus) -> None:
    with pytest.raises(CannotBlockHere, match=r"close\(\) would block .* Use .*close_async"):
        bus.client.close()


async def test_fire_in_a_thread_beside_a_running_loop_works(bus: Bus, broker: Broker) -> None:
    await asyncio.to_thread(bus.auth.user_deleted.fire, username="ann")

    assert names(take_waiting(broker, bus)) == ["ann"]


def test_many_threads_can_fire_at_once(bus: Bus, broker: Broker) -> None:
    def fire(number: int) -> EventMessage:
        return bus.auth.user_deleted.fire(username=str(number))

    with ThreadPoolExecutor(8) as threads:
        fired = list(threads.map(fire, range(200)))

    entries = take_waiting(broker, bus)
    assert {entry.message.id for entry in entries} == {message.id for message in fired}
    assert sorted(names(entries)) == sorted(str(number) for number in range(200))


def test_all_threads_share_one_background_thread(bus: Bus) -> None:
    before = set(threading.enumerate())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: bus.auth.user_deleted.fire(username=str(n)), range(20)))

    assert len(set(threading.enumerate()) - before) == 1
    bus.client.close()


def test_fire_raises_the_error_of_a_hook_on_the_background_loop(bus: Bus) -> None:
    @bus.client.before_event_sent()
    async def refuse() -> None:
        raise PermissionError("not on Sundays")

    with pytest.raises(PermissionError, match="not on Sundays"):
        bus.auth.user_deleted.fire(username="ann")


@pytest.mark.parametrize("cancelled", [asyncio.CancelledError, concurrent.futures.CancelledError])
def test_a_sync_hook_that_meets_a_cancelled_future_does_not_count_as_a_closed_bus(
    bus: Bus, cancelled: type[BaseException]
) -> None:
    @bus.client.before_event_sent()
    def wait_for_cancelled() -> None:
        raise cancelled

    with pytest.raises(CallbackExited, match="Hook 'wait_for_cancelled' raised CancelledError"):
        bus.auth.user_deleted.fire(username="ann")


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_middleware_that_exits_ends_its_own_call_only(bus: Bus, raised: BaseException) -> None:
    is_waiting, may_go_on = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    class Exiting(Middleware):
        async def send(self, message: EventMessage, call_next: Send) -> None:
            if message.kwargs["username"] == "ann":
                raise raised
            loops.append(asyncio.get_running_loop())
            is_waiting.set()
            await may_go_on.wait()
            await call_next(message)

    bus.client.add_middleware(Exiting())
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(bus.auth.user_deleted.fire, username="bob")
        assert is_waiting.wait(PATIENCE)
        with pytest.raises(type(raised)):
            bus.auth.user_deleted.fire(username="ann")
        loops[0].call_soon_threadsafe(may_go_on.set)
        other.result(PATIENCE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_background_loop_that_was_ended_by_its_program_is_replaced(
    bus: Bus, broker: Broker
) -> None:
    stopped: list[threading.Thread] = []

    @bus.client.before_event_sent()
    async def stop(event_message: EventMessage) -> None:
        if event_message.kwargs["username"] == "ann":
            stopped.append(threading.current_thread())
            asyncio.get_running_loop().stop()
            await asyncio.sleep(PATIENCE)

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(TransportClosed):
            threads.submit(bus.auth.user_deleted.fire, username="ann").result(PATIENCE)
        threads.submit(bus.auth.user_deleted.fire, username="bob").result(PATIENCE)
    stopped[0].join(PATIENCE)  # it reports that its loop was stopped
    assert names(take_waiting(broker, bus)) == ["bob"]


class Interrupter:
    """Calls a function once, at a given instruction of the code that makes blocking calls. A signal
    handler or a destructor can run at each of them.
    """

    def __init__(self, at: int, function: Callable[[], object]) -> None:
        self._left = at
        self._function = function
        self.has_interrupted = False

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for it when tracing begins
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, what: str, argument: object) -> Any:
        if frame.f_code.co_filename not in (pool.__file__, background.__file__):
            return None
        frame.f_trace_opcodes = True
        if what == "opcode" and not self.has_interrupted:
            self._left -= 1
            if self._left < 0:
                self.has_interrupted = True
                self._function()
        return self._trace


@pytest.mark.parametrize("call", ["fire", "close"])
def test_a_signal_handler_that_calls_the_bus_may_interrupt_fire_at_any_instruction(
    make_bus: MakeBus, call: str
) -> None:
    at, was_interrupted = 0, True
    while was_interrupted:
        bus = make_bus()
        calls: dict[str, Callable[[], object]] = {
            "fire": functools.partial(bus.auth.user_deleted.fire, username="inner"),
            "close": bus.client.close,
        }
        # Closing the bus may end the call that it interrupts.
        with (
            contextlib.suppress(*[TransportClosed] * (call == "close")),
            Interrupter(at, calls[call]) as interrupter,
        ):
            bus.auth.user_deleted.fire(username="outer")
        was_interrupted = interrupter.has_interrupted
        bus.client.close()
        at += 1

    assert at > 100


def test_calls_that_interrupt_one_another_leave_no_background_thread(
    make_bus: MakeBus,
) -> None:
    for at in range(0, 200, 7):
        bus = make_bus()
        with Interrupter(at, functools.partial(bus.auth.user_deleted.fire, username="inner")):
            bus.auth.user_deleted.fire(username="outer")
        bus.client.close()

    threads = [thread for thread in threading.enumerate() if thread.name == "lightbus"]
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
