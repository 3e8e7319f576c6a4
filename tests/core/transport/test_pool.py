"""Which connections belong to which event loop, thread and process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

from core.apis import AuditApi, AuthApi
from core.support import PATIENCE, MakeBus, names, take_waiting
from lightbus import Bus, EventMessage, Worker
from lightbus.concurrency import background
from lightbus.concurrency.busy_threads import working_for_the_bus
from lightbus.exceptions import CannotBlockHere, HookExited, NoEventLoop, TransportClosed
from lightbus.handling.middleware import Middleware, Send
from lightbus.transport import pool
from lightbus.transport.contract import EventTransport
from lightbus.transport.pool import new_event_loop
from lightbus_memory.broker import Broker


def ignore(username: str) -> None:
    """A handler for tests in which none is called."""


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


@pytest.fixture
def shared_bus(make_bus: MakeBus, tmp_path: Path) -> Bus:
    """Such a bus on a broker that processes can share."""
    bus = make_bus(event_transport={"sqlite": {"path": str(tmp_path / "events.db")}})
    bus.auth.user_deleted.listen(ignore, listener_name="gather")
    return bus


async def transport_of(bus: Bus, api_name: str = "auth") -> EventTransport:
    return bus.client.open_transport(api_name).transport


async def count_waiting(bus: Bus) -> int:
    """Return how many events wait for the only listener of `bus`."""
    (listener,) = bus.client.listeners
    subscription = listener.subscription("shop")
    return (await (await transport_of(bus)).stats(subscription)).waiting


# TransportPool


def test_a_second_asyncio_run_just_works(bus: Bus, broker: Broker) -> None:
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


def test_each_loop_has_a_transport_of_its_own(bus: Bus) -> None:
    one, other = asyncio.run(transport_of(bus)), asyncio.run(transport_of(bus))

    assert one is not other


async def test_one_loop_has_one_transport(bus: Bus) -> None:
    assert await transport_of(bus) is await transport_of(bus)


async def test_apis_of_one_configuration_share_a_transport(bus: Bus) -> None:
    assert await transport_of(bus, "auth") is await transport_of(bus, "audit")


async def test_apis_of_different_configurations_do_not(make_bus: MakeBus) -> None:
    elsewhere = {"event_transport": {"memory": {"name": "elsewhere"}}}
    bus = make_bus(others={"audit": elsewhere})

    assert await transport_of(bus, "auth") is not await transport_of(bus, "audit")


def test_the_transports_of_loops_that_ended_are_let_go(bus: Bus) -> None:
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
def test_what_is_awaited_without_asyncio_says_so(
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
        with pytest.raises(NoEventLoop, match=r"event loop of asyncio.* fire\(\) in a thread"):
            awaited_without_asyncio(coroutine)
    assert called == []


# Blocking calls


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


def test_what_a_hook_raises_in_the_background_is_raised_by_fire(bus: Bus) -> None:
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

    with pytest.raises(HookExited, match="Hook 'wait_for_cancelled' raised CancelledError"):
        bus.auth.user_deleted.fire(username="ann")


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_middleware_that_exits_ends_its_own_call_only(bus: Bus, raised: BaseException) -> None:
    is_waiting, may_go_on = threading.Event(), asyncio.Event()

    class Exiting(Middleware):
        async def send(self, message: EventMessage, call_next: Send) -> None:
            if message.kwargs["username"] == "ann":
                raise raised
            is_waiting.set()
            await may_go_on.wait()
            await call_next(message)

    bus.client.add_middleware(Exiting())
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(bus.auth.user_deleted.fire, username="bob")
        assert is_waiting.wait(PATIENCE)
        with pytest.raises(type(raised)):
            bus.auth.user_deleted.fire(username="ann")
        (background,) = bus.client._transports._background.values()
        background.loop.call_soon_threadsafe(may_go_on.set)
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


# Blocking calls that interrupt one another


class Interrupter:
    """Calls a function once, at the given instruction of the bus's own code for blocking calls, as
    a signal handler or a destructor may be called.
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


def test_a_signal_handler_that_fires_may_interrupt_fire_at_any_instruction(
    make_bus: MakeBus,
) -> None:
    at, was_interrupted = 0, True
    while was_interrupted:
        bus = make_bus()
        fire = functools.partial(bus.auth.user_deleted.fire, username="inner")
        with Interrupter(at, fire) as interrupter:
            bus.auth.user_deleted.fire(username="outer")
        was_interrupted = interrupter.has_interrupted
        bus.client.close()
        at += 1

    assert at > 100


def test_a_signal_handler_that_closes_may_interrupt_fire_at_any_instruction(
    make_bus: MakeBus,
) -> None:
    at, was_interrupted = 0, True
    while was_interrupted:
        bus = make_bus()
        with (
            contextlib.suppress(TransportClosed),
            Interrupter(at, bus.client.close) as interrupter,
        ):
            bus.auth.user_deleted.fire(username="outer")
        was_interrupted = interrupter.has_interrupted
        bus.client.close()
        at += 1

    assert at > 100


def test_no_background_thread_is_left_of_calls_that_interrupted_one_another(
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


def test_a_destructor_on_a_thread_that_the_bus_works_on_is_refused_at_once(bus: Bus) -> None:
    with working_for_the_bus(), pytest.raises(CannotBlockHere, match="destructor"):
        bus.auth.user_deleted.fire(username="ann")
    with working_for_the_bus(), pytest.raises(CannotBlockHere, match="destructor"):
        bus.client.close()

    bus.auth.user_deleted.fire(username="ann")


def in_a_process(script: str, folder: Path) -> str:
    """Run a program in a process of its own; return what it prints."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}\n{script}"],
        capture_output=True,
        text=True,
        timeout=8 * PATIENCE,
        env=environment,
        check=True,
    )
    return done.stdout


PROGRAM = """
import gc, os, sys
import lightbus
from lightbus import Api, Event

class AuthApi(Api):
    user_deleted = Event(parameters=("username",))
    class Meta:
        name = "auth"

bus = lightbus.create({}, service_name="shop")
bus.client.register_api(AuthApi())

def fire():
    try:
        bus.auth.user_deleted.fire(username="ann")
        print("fired", flush=True)
    except lightbus.exceptions.LightbusException as error:
        print(type(error).__name__, flush=True)

class Fires:
    def __init__(self):
        self.itself = self
    def __del__(self):
        fire()
"""


def test_a_destructor_on_the_thread_of_sqlite_is_refused_at_once(tmp_path: Path) -> None:
    script = """
import asyncio
async def collect_there():
    transport = await bus.client.opened_transport("auth")
    gc.disable()
    Fires()
    await transport._database.write(lambda _: gc.collect(), timeout=30)
    await bus.client.close_async()
asyncio.run(collect_there())
"""
    assert in_a_process(script, tmp_path) == "CannotBlockHere\n"


def test_a_signal_handler_that_interrupts_a_fork_is_refused_at_once(
    tmp_path: Path,
) -> None:
    # What is registered first is called last before a fork.
    script = """
fire()
if os.fork() == 0:
    os._exit(0)
os.wait()
fire()
"""
    first = "import os; os.register_at_fork(before=lambda: fire())\n"
    assert in_a_process(script, tmp_path) == "fired\nfired\n"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{first}{PROGRAM}{script}"],
        capture_output=True,
        text=True,
        timeout=8 * PATIENCE,
        env=environment,
        check=True,
    )
    assert done.stdout == "fired\nCannotBlockHere\nfired\n"


def test_a_destructor_at_the_end_of_the_interpreter_is_refused_at_once(
    tmp_path: Path,
) -> None:
    # Its defaults keep what it needs, for the module's names are gone by then.
    script = """
class FiresLate:
    def __del__(self, bus=bus, print=print):
        try:
            bus.auth.user_deleted.fire(username="ann")
        except Exception as error:
            print(type(error).__name__, flush=True)

fire()
kept = FiresLate()
"""
    assert in_a_process(script, tmp_path) == "fired\nTransportClosed\n"


# Closing


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


def test_closing_reaches_the_transports_of_another_thread_and_its_loop(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.auth.user_deleted.fire(username="ann")
    (background,) = [thread for thread in threading.enumerate() if thread.name == "lightbus"]

    bus.client.close()

    background.join(PATIENCE)
    assert not background.is_alive()


def test_a_call_under_way_when_the_bus_closes_is_told(bus: Bus) -> None:
    begun = threading.Event()

    @bus.client.before_event_sent()
    async def never_ends() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        firing = threads.submit(bus.auth.user_deleted.fire, username="ann")
        assert begun.wait(PATIENCE)
        bus.client.close()

        with pytest.raises(TransportClosed, match="closed during this call"):
            firing.result(PATIENCE)


def test_threads_that_fire_while_the_bus_closes_again_and_again_fire_or_are_told(
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


# Processes


def in_a_fork(child: Callable[[], object]) -> tuple[int, str]:
    """Run `child` in a forked process; return its exit code and what went wrong there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        problem = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), problem


# From 3.12 on, Python warns of every fork beside a thread. That one works is what is tested.
forking = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@forking
def test_a_forked_child_fires_through_a_transport_of_its_own(shared_bus: Bus) -> None:
    bus = shared_bus
    bus.auth.user_deleted.fire(username="before the fork")

    def child() -> None:
        bus.auth.user_deleted.fire(username="child")
        asyncio.run(bus.auth.user_deleted.fire_async(username="child's loop"))
        bus.client.close()

    assert in_a_fork(child) == (0, "")
    bus.auth.user_deleted.fire(username="after the fork")
    assert asyncio.run(count_waiting(bus)) == 4


@forking
async def test_a_child_forked_beside_a_running_loop_starts_with_no_transport(
    shared_bus: Bus,
) -> None:
    bus = shared_bus
    mine = await transport_of(bus)
    closed: list[str] = []
    mine.close = lambda: closed.append("closed")  # type: ignore[method-assign,assignment,return-value]

    def child() -> None:
        bus.client.close()
        assert asyncio.run(transport_of(bus)) is not mine
        bus.auth.user_deleted.fire(username="child")
        bus.client.close()
        assert closed == [], "the child closed what is its parent's"

    assert in_a_fork(child) == (0, "")
    del mine.close
    assert await transport_of(bus) is mine
    await bus.auth.user_deleted.fire_async(username="parent")
    assert await count_waiting(bus) == 2


@forking
def test_a_child_can_not_fire_into_a_copy_of_its_parents_memory(bus: Bus) -> None:
    bus.auth.user_deleted.fire(username="parent")

    code, problem = in_a_fork(lambda: bus.auth.user_deleted.fire(username="child"))

    assert code == 1
    assert "TransportRefused" in problem
    assert "use the SQLite transport" in problem


@forking
def test_a_child_has_a_process_name_of_its_own(bus: Bus) -> None:
    mine = bus.client.config.process_name()

    def child() -> None:
        assert str(os.getpid()) in bus.client.config.process_name()
        assert bus.client.config.process_name() != mine

    assert in_a_fork(child) == (0, "")
