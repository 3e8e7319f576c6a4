"""`TimeLimit`: runs work with a time limit, without a task or a timer for each piece of work."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

Subject = TypeVar("Subject")


class WorkCancelled(Exception):
    """The work cancelled itself."""


class TimeLimit(Generic[Subject]):
    """Runs pieces of work with a time limit, one after the other, on one task.

    A task for each piece would be simpler, but costs more than most handlers. So each piece runs on
    the calling task, with its own context variables. One timer serves all pieces; if it expires
    before the deadline of the current piece, it is set again.

    Args:
        seconds: The time limit.
        on_exceeded: Called when work exceeds the limit, with the subject of the work and an event
            that is set once the work has ended. It runs while the work is being cancelled.
    """

    def __init__(
        self,
        seconds: float,
        on_exceeded: Callable[[Subject, asyncio.Event], Coroutine[Any, Any, None]],
    ) -> None:
        self._seconds = seconds
        self._on_exceeded = on_exceeded
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._running: tuple[Subject, asyncio.Task[Any]] | None = None
        self._overrun: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self._work_cancels = 0

    async def run(self, work: Coroutine[Any, Any, None], subject: Subject) -> bool:
        """Run `work`, and return whether it ended within the limit.

        If it did not, `on_exceeded` has ended too, and an exception of the work is ignored.

        Raises:
            WorkCancelled: The work cancelled itself.
            CancelledError: This task was cancelled.
            Exception: The work raised it.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._begin(subject, task)
        try:
            await self._run_in_context(work, task)
        except asyncio.CancelledError as error:
            await self._end(task, is_cancelled=task.cancelling() > self._known_cancels)
            if self._overrun is None:
                raise WorkCancelled from error
        except Exception:
            await self._end(task)
            if self._overrun is None:
                raise
        else:
            await self._end(task)
        return self._overrun is None

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, subject: Subject, task: asyncio.Task[Any]) -> None:
        self._overrun = None
        self._work_cancels = 0
        self._running = subject, task
        self._deadline = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._check)

    @property
    def _known_cancels(self) -> int:
        return self._work_cancels + (self._overrun is not None)

    async def _end(self, task: asyncio.Task[Any], *, is_cancelled: bool = False) -> None:
        """Remove the cancellations by the work from the task, and keep those by others."""
        self._running = None
        # Work may leave more cancellations than it requested, as `TaskGroup` does on Python 3.11.
        while task.cancelling() and not is_cancelled:
            task.uncancel()
        if self._work_cancels:
            # A cancellation that the work requested but did not await is raised at the next await.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._overrun is not None:
            overrun, ended = self._overrun
            ended.set()
            if is_cancelled:
                overrun.cancel()
                await asyncio.wait({overrun})
            else:
                await overrun
        if is_cancelled:
            raise asyncio.CancelledError

    def _check(self) -> None:
        self._timer = None
        if self._running is None or self._overrun is not None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check)
            return
        subject, task = self._running
        ended = asyncio.Event()
        self._overrun = self._loop.create_task(self._on_exceeded(subject, ended)), ended
        task.cancel()

    @types.coroutine
    def _run_in_context(
        self, work: Coroutine[Any, Any, None], task: asyncio.Task[Any]
    ) -> Generator[Any, Any, None]:
        """Await `work` with its own context variables, as if it ran in its own task."""
        context = contextvars.copy_context()
        step: Callable[[], Any] = functools.partial(work.send, None)
        while True:
            cancels = task.cancelling()
            try:
                awaited = context.run(step)
            except StopIteration:
                return
            finally:
                # Only the work itself can cancel the task during this step. It may also undo
                # cancellations by others, as `asyncio.timeout` does.
                self._work_cancels = max(self._work_cancels + task.cancelling() - cancels, 0)
            try:
                step = functools.partial(work.send, (yield awaited))
            except BaseException as error:
                step = functools.partial(work.throw, error)
