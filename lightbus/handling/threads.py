"""Threads for sync handlers and hooks."""

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


def returning(function: Callable[[], Any]) -> Any:
    """Return what `function` returns, or raise what it raises, in a form that a future can hold.

    ``StopIteration`` becomes ``RuntimeError``, as it does where a coroutine raises it (PEP 479).
    So does ``GeneratorExit``, which would end all that awaits it.
    """
    try:
        return function()
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"the function raised {type(error).__name__}") from error


class HandlerThreads:
    """The threads of a worker for sync code. Free threads are reused."""

    def __init__(self) -> None:
        self._idle: list[ThreadPoolExecutor] = []
        self._running: set[Future[Any]] = set()
        self._is_shut_down = False

    @property
    def running(self) -> int:
        """How many sync functions run now."""
        return len(self._running)

    @contextlib.contextmanager
    def one(self) -> Iterator[HandlerThread]:
        """Reserve a thread for the sync code of one event while the block runs."""
        thread = HandlerThread(self)
        try:
            yield thread
        finally:
            thread.release()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Do what `HandlerThread.call` does, on any thread."""
        with self.one() as thread:
            return await thread.call(function)

    def shut_down(self) -> None:
        """End the idle threads now, and the others when they become idle."""
        self._is_shut_down = True
        while self._idle:
            self._idle.pop().shutdown(wait=False)

    def take(self) -> ThreadPoolExecutor:
        """Return a free thread."""
        return self._idle.pop() if self._idle else ThreadPoolExecutor(1, "lightbus-handler")

    def give_back(self, thread: ThreadPoolExecutor, *, is_free: bool) -> None:
        """Reuse a thread if it is free, and end it otherwise."""
        if is_free and not self._is_shut_down:
            self._idle.append(thread)
        else:
            thread.shutdown(wait=False)

    def note_running(self, function: Future[Any]) -> None:
        """Count a function until it has ended."""
        self._running.add(function)
        function.add_done_callback(self._running.discard)


class HandlerThread:
    """A thread and a context for the sync code of one event: its handler and its hooks."""

    def __init__(self, threads: HandlerThreads) -> None:
        self._threads = threads
        self._thread: ThreadPoolExecutor | None = None
        self._context = contextvars.Context()
        self._last: Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._is_released = False

    @property
    def is_usable(self) -> bool:
        """Whether the running code may call a function on the thread now, and not wait for it."""
        is_free = self._last is None or self._last.done()
        return is_free and not self._is_released and self._loop is asyncio.get_running_loop()

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what `function` returns, or raise what it raises, from the thread.

        The function sees the context variables of the caller, and the caller sees those that it
        sets. A thread cannot be stopped: if this call is cancelled, it still waits for the thread
        to end. If it is cancelled again, it stops waiting.
        """
        if self._thread is None:
            self._thread = self._threads.take()
        self._context.run(adopt, contextvars.copy_context())
        try:
            self._last = self._thread.submit(self._context.run, returning, function)
        except BaseException:
            # Where no thread can be started, the executor keeps the function for the next one.
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
            raise
        self._threads.note_running(self._last)
        ended = asyncio.wrap_future(self._last)
        try:
            result = await asyncio.shield(ended)
        except asyncio.CancelledError:
            await asyncio.wait({ended})
            raise
        adopt(self._context)
        return result

    def release(self) -> None:
        """Let others have the thread."""
        self._is_released = True
        if self._thread is not None:
            is_free = self._last is None or self._last.done()
            self._threads.give_back(self._thread, is_free=is_free)


# The thread of the event that the running code handles.
handler_thread: ContextVar[HandlerThread] = ContextVar("handler_thread")


async def call_in_new_thread(function: Callable[[], Any]) -> Any:
    """Return what `function` returns, or raise what it raises, from a new daemon thread.

    The function sees the context variables of the caller, and the caller sees those that it sets.
    If this call is cancelled, it stops waiting for the thread.
    """
    context = contextvars.copy_context()
    ended: Future[Any] = Future()
    ended.set_running_or_notify_cancel()

    def run() -> None:
        try:
            ended.set_result(context.run(returning, function))
        except BaseException as error:
            ended.set_exception(error)

    # Not an executor: a signal handler that fires could interrupt code that holds the executor's
    # lock.
    threading.Thread(target=run, name="lightbus-hook", daemon=True).start()
    result = await asyncio.wrap_future(ended)
    adopt(context)
    return result


def adopt(context: contextvars.Context) -> None:
    """Set the context variables of this context to their values in another one."""
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
