"""`LoopEnd`: does work when an event loop ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any

from lightbus.log import get_logger

_log = get_logger(__name__)


class LoopEnd:
    """Awaits `work()` on the running event loop just before that loop is closed.

    It relies on ``loop.shutdown_asyncgens()``, which `asyncio.run`, `asyncio.Runner` and most other
    programs that run a loop call at its end: that closes an asynchronous generator that waits. A
    loop that is closed without it does no work.

    Keep a reference to the object: `work` is also done when it is collected as garbage.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work: Callable[[], Coroutine[Any, Any, None]] | None = work
        self._waiting = self._wait()
        # asyncio warns where it has closed the loop's generators already.
        with contextlib.suppress(ResourceWarning):
            _run_to_next_yield(self._waiting.__anext__())

    def cancel(self) -> None:
        """Do no work at the end. May be called from any thread, and again."""
        if self._work is not None:
            self._work = None
            _run_to_next_yield(self._waiting.aclose())

    async def _wait(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            work, self._work = self._work, None
            if work is not None:
                await _logged(work)


async def _logged(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await work()
    except Exception:
        _log.exception("Cleaning up at the end of an event loop failed.")


def _run_to_next_yield(step: Coroutine[Any, Any, None] | Generator[Any, Any, None]) -> None:
    """Run a step of a generator that does not wait for anything."""
    with contextlib.suppress(StopIteration):
        step.send(None)
