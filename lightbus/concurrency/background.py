"""Runs an event loop in a background thread, for other threads that wait for its results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from lightbus.concurrency import green
from lightbus.concurrency.busy_threads import working_for_the_bus
from lightbus.exceptions import TransportClosed

T = TypeVar("T")


class NotStarted(Exception):
    """The loop stopped before it started a call."""


class Call(Generic[T]):
    """A coroutine that runs on the event loop of one thread while another thread waits for it.

    This code uses no locks, because a signal handler or a destructor can interrupt a call at any
    point and make another call on the same thread.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._function = function
        self._task: asyncio.Task[T] | None = None
        self._exit: BaseException | None = None
        self._waiter = _new_waiter()

    def start(self) -> None:
        """Run the coroutine on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self.wake())

    async def _run(self) -> T:
        try:
            return await self._function()
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:
            # The waiting thread raises the error. Here it would end the loop for all calls.
            self._exit = error
            raise RuntimeError from error

    def wake(self) -> None:
        """Wake the waiting thread. May be called from any thread."""
        self._waiter.wake()

    def cancel(self) -> None:
        """Cancel the coroutine, on its loop."""
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> None:
        """Wait until the call has ended."""
        self._waiter.wait()

    def result(self) -> T:
        """Return what the coroutine returned, or raise what it raised.

        Raises:
            NotStarted: The loop stopped before the coroutine started.
            TransportClosed: The loop stopped before the coroutine ended.
        """
        if self._task is None:
            raise NotStarted
        if not self._task.done() or self._task.cancelled():
            raise TransportClosed(
                "The bus was closed during this call; the outcome of the call is unknown."
            )
        if self._exit is not None:
            self._task.exception()  # otherwise asyncio reports an exception that is never retrieved
            raise self._exit
        return self._task.result()


class BackgroundLoop:
    """An event loop in a daemon thread. It is a real thread even under gevent.

    Args:
        new_loop: Creates the loop. Called on its thread.
        before_end: Awaited on the loop before it stops.
        on_ended: Called with the loop after it is closed.

    Attributes:
        loop: The event loop.
        ended: Completed when the loop is closed.

    Raises:
        OSError: The operating system cannot provide another thread or file.
    """

    def __init__(
        self,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        *,
        before_end: Callable[[], Coroutine[Any, Any, None]],
        on_ended: Callable[[asyncio.AbstractEventLoop], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        # Prevents a thread that stops waiting from cancelling the future for other threads.
        self.ended.set_running_or_notify_cancel()
        self._before_end = before_end
        self._on_ended = on_ended
        self._stopping = asyncio.Event()
        self._calls: set[Call[Any]] = set()
        self._has_ended = False
        self._start_thread(new_loop)

    def _start_thread(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        started = _new_waiter()
        errors: list[BaseException] = []

        def run() -> None:
            with working_for_the_bus():
                try:
                    self.loop = new_loop()
                except BaseException as error:
                    errors.append(error)
                    return
                finally:
                    started.wake()
                self._run()

        if green.is_gevent():
            green.original("_thread", "start_new_thread")(run, ())
        else:
            threading.Thread(target=run, name="lightbus", daemon=True).start()
        try:
            started.wait()
        except BaseException:  # interrupted, for example by Ctrl-C
            self._stopping.set()
            with contextlib.suppress(AttributeError):  # the loop does not exist yet
                self.request_stop()
            raise
        if errors:
            raise errors[0]

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine of `function` on the loop, and wait for its result.

        Raises:
            NotStarted: The loop has stopped.
            TransportClosed: The loop stopped before the coroutine ended.
            Exception: The coroutine raised it.
        """
        call = Call(function)
        self._calls.add(call)
        try:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._start_call, call)
            # The thread of the loop sets `_has_ended` before it wakes the remaining calls.
            if not self._has_ended:
                call.wait()
        except BaseException:
            # This thread was interrupted, for example by Ctrl-C, so the result is not needed.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(call.cancel)
            raise
        finally:
            self._calls.discard(call)
        return call.result()

    def request_stop(self) -> None:
        """Stop the loop, and cancel the tasks that run on it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._stopping.set)

    def _start_call(self, call: Call[Any]) -> None:
        if self._stopping.is_set():
            call.wake()
        else:
            call.start()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._until_stopped())
        finally:
            self._has_ended = True
            for call in list(self._calls):
                call.wake()
            self._on_ended(self.loop)
            self.ended.set_result(None)

    async def _until_stopped(self) -> None:
        await self._stopping.wait()
        await self._before_end()


def run_apart_from_greenlets(function: Callable[[], None]) -> None:
    """Call `function`. Under gevent, call it in a thread, so that other greenlets can run."""
    if not green.is_gevent():
        function()
        return
    waiter = _GreenletWaiter()

    def run() -> None:
        try:
            function()
        finally:
            waiter.wake()

    try:
        green.original("_thread", "start_new_thread")(run, ())
    except RuntimeError:
        # Python 3.12 starts no thread at exit. No other greenlets run then.
        function()
    else:
        waiter.wait()


def _new_waiter() -> _GreenletWaiter | _ThreadWaiter:
    return _GreenletWaiter() if green.is_gevent() else _ThreadWaiter()


class _ThreadWaiter:
    """Lets a thread wait. Signal handlers can interrupt the queue, which is not Python code."""

    def __init__(self) -> None:
        self._woken = green.original("queue", "SimpleQueue")()

    def wake(self) -> None:
        self._woken.put(None)

    def wait(self) -> None:
        self._woken.get()


class _GreenletWaiter:
    """Lets a greenlet wait for another thread while other greenlets run."""

    def __init__(self) -> None:
        hub: Any = importlib.import_module("gevent").get_hub()
        self._woken = importlib.import_module("gevent.event").Event()
        self._watcher = hub.loop.async_()
        self._watcher.start(self._woken.set)
        self._is_waiting = True

    def wake(self) -> None:
        if self._is_waiting:
            self._watcher.send()

    def wait(self) -> None:
        try:
            self._woken.wait()
        finally:
            self._is_waiting = False
            self._watcher.stop()
            self._watcher.close()
