"""Threads for sync handlers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

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
