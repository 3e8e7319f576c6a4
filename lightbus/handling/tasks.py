"""What a worker does beside handling events: at intervals, at times, or all the while."""

from __future__ import annotations

import asyncio
import inspect
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, timedelta, tzinfo
from typing import Any

import attrs

from lightbus.exceptions import ApiError, CallbackExited
from lightbus.handling.calling import call, finish, is_async, is_generator, name_of
from lightbus.handling.cron import cron_times, zone_of
from lightbus.handling.signatures import signature_of
from lightbus.handling.threads import HandlerThreads
from lightbus.log import get_logger
from lightbus.policy import OnError

_log = get_logger(__name__)

# How long to sleep at most before looking at the clock again, in seconds: it may be set meanwhile.
_LONGEST_NAP = 30.0

# A clock that is set back by more than so many seconds was wrong before, and what it was wrong by
# is not waited for. Debian's cron has the same limit: man 8 cron.
_LARGEST_CORRECTION = 3 * 3600.0

# Given when the worker started and the time now, returns the next time.
NextTime = Callable[[float, float], float]


@attrs.frozen(kw_only=True, eq=False)
class ScheduledTask:
    """A function that a worker calls again and again.

    Attributes:
        name: For messages.
        function: What is called; an async one on the worker's loop, a sync one in a thread.
        also_run_immediately: Whether it is called when the worker starts, too.
        on_error: What happens when it raises.
        now: Tells the time on the clock that `next_time` is of.
        next_time: Tells when it is called next.
    """

    name: str
    function: Callable[[], Any]
    also_run_immediately: bool
    on_error: OnError
    now: Callable[[], float]
    next_time: NextTime

    async def run(self, threads: HandlerThreads, stopping: asyncio.Event) -> None:
        """Call the function at its times, one call after the other, until `stopping` is set.

        Raises:
            Exception: What it raised, where that is to end the worker.
        """
        began = reached = self.now()
        if self.also_run_immediately:
            await self._call(threads)
        due = self.next_time(began, max(reached, self.now()))
        while not stopping.is_set():
            now = self.now()
            if now < reached - _LARGEST_CORRECTION:
                reached, due = now, self.next_time(began, now)
            # Where the clock was set back by less, no time comes twice.
            reached = max(reached, now)
            if reached < due:
                await _set_within(stopping, min(due - now, _LONGEST_NAP))
                continue
            await self._call(threads)
            # Times that went by during the call are left out.
            due = self.next_time(began, max(reached, self.now()))

    async def _call(self, threads: HandlerThreads) -> None:
        try:
            await _isolated(self.name, call(self.function, threads.call))
        except Exception:
            _log.exception("A scheduled task failed.", task=self.name, on_error=self.on_error.name)
            if self.on_error is OnError.SHUTDOWN:
                raise


@attrs.frozen(kw_only=True, eq=False)
class BackgroundTask:
    """A coroutine that runs for as long as the worker does.

    Attributes:
        name: For messages.
        start: Returns what is awaited.
        coroutine: What `start` returns, where that was there before, and can be awaited only once.
    """

    name: str
    start: Callable[[], Awaitable[Any]]
    coroutine: Coroutine[Any, Any, Any] | None = None

    async def run(self) -> None:
        """Await it.

        Raises:
            Exception: What it raised.
        """
        try:
            await _isolated(self.name, finish(self.start(), self.start))
        except Exception:
            _log.exception("A background task failed.", task=self.name)
            raise


Task = ScheduledTask | BackgroundTask


def every(
    function: Callable[[], Any],
    period: timedelta,
    *,
    also_run_immediately: bool = False,
    on_error: OnError = OnError.SHUTDOWN,
) -> ScheduledTask:
    """Return a task that is called in even periods from the worker's start on.

    A call that takes longer than a period skips those that it overlaps.

    Raises:
        ApiError: The period is not positive, or the function cannot be called.
    """
    seconds = period.total_seconds()
    if not seconds > 0:
        raise ApiError(
            f"{name_of(function)}() cannot run every {seconds:g} s. Give a period of more than 0 s."
        )

    def next_time(began: float, now: float) -> float:
        return began + seconds * ((now - began) // seconds + 1)

    return _scheduled(
        function, also_run_immediately, on_error, now=time.monotonic, next_time=next_time
    )


def at_times(
    function: Callable[[], Any],
    cron: str,
    *,
    timezone: str | tzinfo = UTC,
    also_run_immediately: bool = False,
    on_error: OnError = OnError.SHUTDOWN,
) -> ScheduledTask:
    """Return a task that is called at the times of a cron expression.

    Raises:
        ApiError: The expression or the time zone is wrong, or the function cannot be called.
    """
    from cronsim import CronSimError  # noqa: PLC0415 - few programs need it

    zone = zone_of(timezone, name_of(function))

    def next_time(_: float, now: float) -> float:
        return next(at for at in cron_times(cron, zone, now) if at > now)

    try:
        next_time(0, time.time())
    except (CronSimError, StopIteration, AttributeError, TypeError) as error:
        raise ApiError(
            f"{name_of(function)}() cannot run at {cron!r}, which is not a cron expression"
            f"{f': {error}' if str(error) else ''}. An example: '30 4 * * mon-fri'."
        ) from error
    return _scheduled(function, also_run_immediately, on_error, now=time.time, next_time=next_time)


def in_background(given: Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]]) -> BackgroundTask:
    """Return a task that awaits `given`: a coroutine, or an async function without parameters.

    Raises:
        ApiError: It is neither.
    """
    if inspect.iscoroutine(given):
        task = BackgroundTask(name=given.__qualname__, start=lambda: given, coroutine=given)
        # Otherwise Python would warn, in a program that runs no tasks, that it was never awaited.
        weakref.finalize(task, _close_unawaited, given)
        return task
    if not callable(given) or not is_async(given):
        raise ApiError(f"{given!r} cannot run in the background. Give an async function.")
    _check_needs_nothing(given)
    return BackgroundTask(name=name_of(given), start=given)


def _close_unawaited(coroutine: Coroutine[Any, Any, Any]) -> None:
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


def _scheduled(
    function: Callable[[], Any],
    also_run_immediately: bool,  # noqa: FBT001 - passed on
    on_error: OnError,
    *,
    now: Callable[[], float],
    next_time: NextTime,
) -> ScheduledTask:
    if not callable(function):
        raise ApiError(f"{function!r} cannot be scheduled, because it is not callable.")
    _check_needs_nothing(function)
    if on_error not in (OnError.SHUTDOWN, OnError.ACKNOWLEDGE_AND_LOG):
        raise ApiError(
            f"{name_of(function)}() has on_error {on_error!r}. Give OnError.SHUTDOWN or "
            "OnError.ACKNOWLEDGE_AND_LOG."
        )
    return ScheduledTask(
        name=name_of(function),
        function=function,
        also_run_immediately=also_run_immediately,
        on_error=on_error,
        now=now,
        next_time=next_time,
    )


def _check_needs_nothing(function: Callable[..., Any]) -> None:
    try:
        signature_of(function).bind()
    except (TypeError, ValueError) as error:
        raise ApiError(
            f"{name_of(function)}() cannot be a task, because tasks are called without arguments: "
            f"{error}."
        ) from error
    if is_generator(function):
        raise ApiError(f"{name_of(function)}() cannot be a task, because it is a generator.")


async def _isolated(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Do what `_guarded` does, on an asyncio task of its own: what the work cancels is that task,
    and what it sets in a context variable ends with it.
    """
    await _guarded(name, asyncio.create_task(_guarded(name, work), name=f"Task {name!r}"))


async def _guarded(name: str, work: Awaitable[Any]) -> None:
    """Await `work`, and raise an `Exception` where it tries to end more than itself.

    Raises:
        CallbackExited: It raised an error such as `SystemExit`, or cancelled itself.
        CancelledError: This task was cancelled.
        Exception: What it raised.
    """
    try:
        await work
    except asyncio.CancelledError as error:
        if (current := asyncio.current_task()) is not None and current.cancelling():
            raise
        raise CallbackExited("Task", name, error) from error
    except Exception:
        raise
    except BaseException as error:
        raise CallbackExited("Task", name, error) from error


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
