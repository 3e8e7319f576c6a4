"""`LoopEnd`: calls a function when an event loop ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

from lightbus.log import get_logger

_log = get_logger(__name__)


class LoopEnd:
    """Awaits `work()` on the running event loop before the loop is closed.

    This relies on ``loop.shutdown_asyncgens()``, which `asyncio.run`, `asyncio.Runner` and most
    other programs call at the end of a loop: it closes a waiting asynchronous generator. If a loop
    is closed without it, `work` is not called.

    Keep a reference to the object, because `work` is also called when it is garbage-collected.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work: Callable[[], Coroutine[Any, Any, None]] | None = work
        self._waiting = self._wait()
        # asyncio warns if it has closed the generators of the loop already.
        with contextlib.suppress(ResourceWarning):
            _run_to_next_yield(self._waiting.__anext__())

    def cancel(self) -> None:
        """Do not call `work`. May be called from any thread, and more than once."""
        if self._work is not None:
            self._work = None
            _run_to_next_yield(self._waiting.aclose())

    async def _wait(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            work, self._work = self._work, None
            if work is not None:
                await _call_and_log(work)


async def _call_and_log(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:
        _log.exception("Clean-up at the end of an event loop failed.")


def _run_to_next_yield(step: Coroutine[Any, Any, None] | Generator[Any, Any, None]) -> None:
    """Run a generator up to its next yield, if nothing before it waits."""
    with contextlib.suppress(StopIteration):
        step.send(None)
