"""Runs sync handlers and hooks in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

_UNSET = object()


def call_for_future(function: Callable[[], Any]) -> Any:
    """Call `function`, and raise only exceptions that a future can store.

    ``StopIteration`` becomes ``RuntimeError``, as in a coroutine (PEP 479). So does
    ``GeneratorExit``, which would end every coroutine that awaits the future.
    """
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"the function raised {type(error).__name__}") from error


class HandlerThreads:
    """The threads of a worker for sync code. Idle threads are reused."""

    def __init__(self) -> None:
        self._idle: list[ThreadPoolExecutor] = []
        self._running: set[Future[Any]] = set()
        self._is_shut_down = False

    @property
    def running(self) -> int:
        """The number of sync functions that are running."""
        return len(self._running)

    @contextlib.contextmanager
    def reserve(self) -> Iterator[HandlerThread]:
        """Reserve a thread for the sync code of one event while the block runs."""
        thread = HandlerThread(self)
        try:
            yield thread
        finally:
            thread.release()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` on any thread; see `HandlerThread.call`."""
        with self.reserve() as thread:
            return await thread.call(function)

    def shut_down(self) -> None:
        """Stop the idle threads now, and the others when they become idle."""
        self._is_shut_down = True
        while self._idle:
            self._idle.pop().shutdown(wait=False)

    def acquire(self) -> ThreadPoolExecutor:
        """Return an idle thread, or a new one."""
        return self._idle.pop() if self._idle else ThreadPoolExecutor(1, "lightbus-handler")

    def release(self, thread: ThreadPoolExecutor, *, is_idle: bool) -> None:
        """Keep a thread for reuse if it is idle, and stop it otherwise."""
        if is_idle and not self._is_shut_down:
            self._idle.append(thread)
        else:
            thread.shutdown(wait=False)

    def add_running(self, function: Future[Any]) -> None:
        """Count a function as running until it has ended."""
        self._running.add(function)
        function.add_done_callback(self._running.discard)


class HandlerThread:
    """The thread and the context variables for the sync handler and the sync hooks of one event."""

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self._thread: ThreadPoolExecutor | None = None
        self._context = contextvars.Context()
        self._last: Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_released = False

    @property
    def is_usable(self) -> bool:
        """Whether the calling code may use the thread now."""
        is_idle = self._last is None or self._last.done()
        return is_idle and not self._is_released and self._loop is asyncio.get_running_loop()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the thread, and return its result or raise its exception.

        The function has the context variables of the caller, and its changes to them are visible
        to the caller. A thread cannot be cancelled. If this call is cancelled, it waits for the
        function to end. If it is cancelled again, it stops waiting.
        """
        if self._thread is None:
            self._thread = self._threads.acquire()
        self._context.run(apply_context, contextvars.copy_context())
        try:
            self._last = self._thread.submit(self._context.run, call_for_future, function)
        except BaseException:
            # If no thread can be started, the executor would keep the function and call it later.
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
            raise
        self._threads.add_running(self._last)
        ended = asyncio.wrap_future(self._last)
        try:
            result = await asyncio.shield(ended)
        except asyncio.CancelledError:
            await asyncio.wait({ended})
            raise
        apply_context(self._context)
        return result

    def release(self) -> None:
        """Let other events use the thread."""
        self._is_released = True
        if self._thread is not None:
            is_idle = self._last is None or self._last.done()
            self._threads.release(self._thread, is_idle=is_idle)


# The thread of the event that is being handled
handler_thread: ContextVar[HandlerThread] = ContextVar("handler_thread")


async def call_in_new_thread(function: Callable[[], Any]) -> Any:
    """Call `function` on a new daemon thread, and return its result or raise its exception.

    The function has the context variables of the caller, and its changes to them are visible to the
    caller. If this call is cancelled, it stops waiting for the thread.
    """
    context = contextvars.copy_context()
    ended: Future[Any] = Future()
    ended.set_running_or_notify_cancel()

    def run() -> None:
        try:
            ended.set_result(context.run(call_for_future, function))
        except BaseException as error:
            ended.set_exception(error)

    # An executor has a lock. A signal handler that fires an event could interrupt the code that
    # holds that lock.
    threading.Thread(target=run, name="lightbus-hook", daemon=True).start()
    result = await asyncio.wrap_future(ended)
    apply_context(context)
    return result


def apply_context(context: contextvars.Context) -> None:
    """Copy the context variables of another context into this one."""
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
