"""Threads for sync handlers, and which threads must not wait for the bus."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lightbus.green import original

# Each listener bounds how many of its handlers run at once, so the pool need not.
_MOST_THREADS = 10_000


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
    """Runs sync handlers in threads; a thread that is free is used again."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="lightbus-handler")
        self._running: set[Future[Any]] = set()

    @property
    def running(self) -> int:
        """How many handlers run now."""
        return len(self._running)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Return what `function` returns, or raise what it raises, from a thread.

        A thread can not be stopped: once cancelled, this still waits for it to end. Cancelled
        again, it leaves the thread to itself.
        """
        context = contextvars.copy_context()
        running = self._pool.submit(context.run, returning, function)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        ended = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            await asyncio.wait({ended})
            raise

    def shut_down(self) -> None:
        """Let the idle threads end, and take no more handlers."""
        self._pool.shutdown(wait=False)


# By thread id: for how many reasons it must not wait for the bus.
_busy_threads: dict[int, int] = {}


def may_wait() -> bool:
    """Return whether this thread may wait for the bus: whether the bus can work meanwhile.

    A destructor, a weakref callback or a signal handler of the program may run on any thread, also
    on one that the bus works on.
    """
    return original("_thread", "get_ident")() not in _busy_threads


def forbid_waiting() -> None:
    """Have this thread not wait for the bus until `permit_waiting` was called as often."""
    thread = original("_thread", "get_ident")()
    _busy_threads[thread] = _busy_threads.get(thread, 0) + 1


def permit_waiting() -> None:
    """Undo one `forbid_waiting` of this thread."""
    thread = original("_thread", "get_ident")()
    count = _busy_threads.pop(thread, 1) - 1
    if count:
        _busy_threads[thread] = count


@contextlib.contextmanager
def working_for_the_bus() -> Iterator[None]:
    """Mark this thread, while the block runs, as one that the bus works on."""
    forbid_waiting()
    try:
        yield
    finally:
        permit_waiting()


if hasattr(os, "register_at_fork"):
    # A child has one thread, and gives the ids of its parent's others to new ones.
    os.register_at_fork(after_in_child=_busy_threads.clear)
