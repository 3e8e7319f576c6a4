"""`TimeLimit`: runs work for a limited time, without a task or a timer for each piece of it."""

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
    """The work ended as cancelled, and nobody but the work itself had cancelled it."""


class TimeLimit(Generic[Subject]):
    """Runs one piece of work after another, on one task.

    A task for each would be simpler, and costs more than most handlers do. So each piece runs on
    the task that asks for it, in a context of its own, and one timer is armed again whenever it
    goes off too early.

    Args:
        seconds: The limit.
        on_exceeded: Awaited beside work that takes longer, which is being cancelled meanwhile. It
            is given the work's subject, and an event that is set once the work has ended.
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
        self._exceeding: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self._own_cancels = 0

    async def run(self, work: Coroutine[Any, Any, None], subject: Subject) -> bool:
        """Await `work`, and `on_exceeded` where that was called; return whether it was not. What
        late work raises is ignored.

        Raises:
            WorkCancelled: The work cancelled itself.
            CancelledError: This task was cancelled.
            Exception: What the work raised.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._begin(subject, task)
        try:
            await self._in_own_context(work, task)
        except asyncio.CancelledError as error:
            await self._end(task, is_cancelled=task.cancelling() > self._expected_cancels)
            if self._exceeding is None:
                raise WorkCancelled from error
        except Exception:
            await self._end(task)
            if self._exceeding is None:
                raise
        else:
            await self._end(task)
        return self._exceeding is None

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, subject: Subject, task: asyncio.Task[Any]) -> None:
        self._exceeding = None
        self._own_cancels = 0
        self._running = subject, task
        self._deadline = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._check)

    @property
    def _expected_cancels(self) -> int:
        return self._own_cancels + (self._exceeding is not None)

    async def _end(self, task: asyncio.Task[Any], *, is_cancelled: bool = False) -> None:
        """Leave no trace of the work on the task, other than that someone else cancelled it."""
        self._running = None
        # Work may leave more of them behind than it made: a `TaskGroup` in Python 3.11 does.
        while task.cancelling() and not is_cancelled:
            task.uncancel()
        if self._own_cancels:
            # One that work asked for and did not wait for comes with the next wait.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._exceeding is not None:
            exceeding, ended = self._exceeding
            ended.set()
            if is_cancelled:
                exceeding.cancel()
                await asyncio.wait({exceeding})
            else:
                await exceeding
        if is_cancelled:
            raise asyncio.CancelledError

    def _check(self) -> None:
        self._timer = None
        if self._running is None or self._exceeding is not None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._check)
            return
        subject, task = self._running
        ended = asyncio.Event()
        self._exceeding = self._loop.create_task(self._on_exceeded(subject, ended)), ended
        task.cancel()

    @types.coroutine
    def _in_own_context(
        self, work: Coroutine[Any, Any, None], task: asyncio.Task[Any]
    ) -> Generator[Any, Any, None]:
        """Do what `await work` does, as far as `work` can tell on a task of its own."""
        context = contextvars.copy_context()
        step: Callable[[], Any] = functools.partial(work.send, None)
        while True:
            cancels = task.cancelling()
            try:
                awaited = context.run(step)
            except StopIteration:
                return
            finally:
                # What cancels the task while the work is at it, is the work. It may also take back
                # what others asked for, as `asyncio.timeout` does.
                self._own_cancels = max(self._own_cancels + task.cancelling() - cancels, 0)
            try:
                step = functools.partial(work.send, (yield awaited))
            except BaseException as error:
                step = functools.partial(work.throw, error)
