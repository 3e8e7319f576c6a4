"""`SharedTask`: work that is done once, whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class SharedTask:
    """Does `work` when it is first called; every caller waits for its one end.

    A caller that is cancelled leaves it running, so that it is never half done.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether it was called."""
        return self._task is not None

    def begin(self) -> asyncio.Task[None]:
        """Return the task that does it, begun where it was not."""
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return self._task

    async def __call__(self) -> None:
        await asyncio.shield(self.begin())
