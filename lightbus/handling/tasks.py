"""Tasks that a worker runs beside its listeners: at intervals, at times, or in the background."""

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

# The longest sleep before the clock is read again, in seconds, because the clock may be changed
_MAX_SLEEP = 30.0

# If the clock is set back by more than this many seconds, the schedule starts again from the new
# time. By less, the task waits until the old time is reached again. Debian's cron has the same
# limit: man 8 cron.
_MAX_CORRECTION = 3 * 3600.0

# Takes the start of the worker and the current time, and returns the next time.
NextTime = Callable[[float, float], float]


@attrs.frozen(kw_only=True, eq=False)
class ScheduledTask:
    """A function that a worker calls repeatedly.

    Attributes:
        name: The name, for messages.
        function: The function. Async functions run on the worker's loop, and sync ones in a thread.
        also_run_immediately: Whether the function is also called when the worker starts.
        on_error: What happens when the function raises.
        now: Returns the current time, of the clock that `next_time` uses.
        next_time: Returns the time of the next call.
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
            Exception: The function raised it, and `on_error` is `OnError.SHUTDOWN`.
        """
        started = reached = self.now()
        if self.also_run_immediately:
            await self._call(threads)
        due = self.next_time(started, max(reached, self.now()))
        while not stopping.is_set():
            now = self.now()
            if now < reached - _MAX_CORRECTION:
                reached, due = now, self.next_time(started, now)
            # Prevents a second call at the same time if the clock was set back by less.
            reached = max(reached, now)
            if reached < due:
                await _wait_for(stopping, min(due - now, _MAX_SLEEP))
                continue
            await self._call(threads)
            # Times that passed during the call are skipped.
            due = self.next_time(started, max(reached, self.now()))

    async def _call(self, threads: HandlerThreads) -> None:
        try:
            await _run_isolated(self.name, call(self.function, threads.call))
        except Exception:
            _log.exception("Scheduled task failed.", task=self.name, on_error=self.on_error.name)
            if self.on_error is OnError.SHUTDOWN:
                raise


@attrs.frozen(kw_only=True, eq=False)
class BackgroundTask:
    """A coroutine that runs as long as the worker.

    Attributes:
        name: The name, for messages.
        start: Returns the awaitable to run.
        coroutine: The result of `start` if the task was added as a coroutine, which can be awaited
            only once; None otherwise.
    """

    name: str
    start: Callable[[], Awaitable[Any]]
    coroutine: Coroutine[Any, Any, Any] | None = None

    async def run(self) -> None:
        """Run the task until it ends.

        Raises:
            Exception: The task raised it.
        """
        try:
            await _run_isolated(self.name, finish(self.start(), self.start))
        except Exception:
            _log.exception("Background task failed.", task=self.name)
            raise


Task = ScheduledTask | BackgroundTask


def every(
    function: Callable[[], Any],
    period: timedelta,
    *,
    also_run_immediately: bool = False,
    on_error: OnError = OnError.SHUTDOWN,
) -> ScheduledTask:
    """Return a task that runs at regular intervals, counted from the start of the worker.

    If a call takes longer than an interval, the calls that it overlaps are skipped.

    Raises:
        ApiError: `period` is not positive, or `function` cannot be called.
    """
    seconds = period.total_seconds()
    if not seconds > 0:
        raise ApiError(
            f"{name_of(function)}() cannot run every {seconds:g} s. Give a period of more than 0 s."
        )

    def next_time(started: float, now: float) -> float:
        return started + seconds * ((now - started) // seconds + 1)

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
    """Return a task that runs at the times of a cron expression.

    Raises:
        ApiError: The expression or the time zone is not valid, or the function cannot be called.
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


def in_background(
    function: Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]],
) -> BackgroundTask:
    """Return a task that runs in the background.

    Args:
        function: An async function without parameters, or a coroutine.

    Raises:
        ApiError: `function` is neither.
    """
    if inspect.iscoroutine(function):
        name = function.__qualname__
        task = BackgroundTask(name=name, start=lambda: function, coroutine=function)
        # A program that runs no worker never awaits the coroutine, and Python would warn about it.
        weakref.finalize(task, _close_unawaited, function)
        return task
    if not callable(function) or not is_async(function):
        raise ApiError(f"{function!r} cannot run in the background. Give an async function.")
    _check_without_arguments(function)
    return BackgroundTask(name=name_of(function), start=function)


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
    _check_without_arguments(function)
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


def _check_without_arguments(function: Callable[..., Any]) -> None:
    try:
        signature_of(function).bind()
    except (TypeError, ValueError) as error:
        raise ApiError(
            f"{name_of(function)}() cannot be a task, because tasks are called without arguments: "
            f"{error}."
        ) from error
    if is_generator(function):
        raise ApiError(f"{name_of(function)}() cannot be a task, because it is a generator.")


async def _run_isolated(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` in its own asyncio task, with its own context variables.

    Raises:
        CallbackExited: `work` tried to exit the process, or cancelled itself.
        CancelledError: This task was cancelled.
        Exception: `work` raised it.
    """
    await _run_guarded(name, asyncio.create_task(_run_guarded(name, work), name=f"Task {name!r}"))


async def _run_guarded(name: str, work: Awaitable[Any]) -> None:
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


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
