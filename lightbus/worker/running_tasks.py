"""`RunningTasks`: the asyncio tasks in which a worker runs its listeners and tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lightbus.log import get_logger

_log = get_logger(__name__)

# How long a cancelled handler may take to end, and then to have its event requeued, in seconds
CANCEL_TIMEOUT = 1.0
CLEAN_UP_TIMEOUT = 5.0


class RunningTasks:
    """The asyncio tasks of a worker.

    Args:
        on_failure: Called with the error of a task that failed.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def create(
        self,
        work: Coroutine[Any, Any, None],
        *,
        name: str | None = None,
        is_background: bool = False,
    ) -> None:
        """Run `work` in a task.

        Args:
            work: The coroutine to run.
            name: The name of the task.
            is_background: Whether `cancel_background` cancels the task.
        """
        task = asyncio.create_task(self._run(work), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if is_background:
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._on_failure(error)

    def cancel_background(self) -> None:
        """Cancel the background tasks, which do not end by themselves."""
        for task in list(self._background):
            task.cancel()

    async def drain(self, *, timeout: float, stop_now: asyncio.Event) -> None:
        """Wait for all tasks to end.

        Args:
            timeout: After this many seconds, the remaining tasks are cancelled.
            stop_now: Once this event is set, the remaining tasks are cancelled.
        """
        tasks = set(self._tasks)
        if not tasks:
            return
        stopping_now = asyncio.create_task(stop_now.wait())
        finished = asyncio.create_task(asyncio.wait(tasks))
        await asyncio.wait(
            {stopping_now, finished}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        stopping_now.cancel()
        finished.cancel()
        unfinished = {task for task in tasks if not task.done()}
        if not unfinished:
            return
        _log.warning("Worker: handlers or tasks did not finish in time; requeuing their events.")
        # After the first cancellation, a handler may clean up. After the second one, the worker no
        # longer waits for its thread.
        for cancel_timeout in (CANCEL_TIMEOUT, CLEAN_UP_TIMEOUT):
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=cancel_timeout)
