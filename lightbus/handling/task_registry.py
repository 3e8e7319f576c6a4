"""`TaskRegistry`: the scheduled tasks and background tasks of a bus."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta, tzinfo
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from lightbus.exceptions import ApiError
from lightbus.handling.registry import Registry
from lightbus.handling.tasks import Task, at_times, every, in_background
from lightbus.policy import OnError

Function = TypeVar("Function", bound=Callable[[], Any])


class AddTask(Protocol):
    """A decorator that adds a scheduled task and returns the function unchanged."""

    def __call__(self, function: Function, /) -> Function: ...


class ScheduleOptions(TypedDict, total=False):
    """The options of a scheduled task.

    Attributes:
        also_run_immediately: Whether to call the function when a worker starts, too. Default:
            False.
        on_error: What happens when the function raises an error. `OnError.SHUTDOWN`, the default,
            stops the worker. `OnError.ACKNOWLEDGE_AND_LOG` logs the error, and the function is
            called again at its next time.
    """

    also_run_immediately: bool
    on_error: OnError


class TaskRegistry(Registry[Task]):
    """The scheduled tasks and background tasks of a bus."""

    def every(
        self,
        *,
        seconds: float,
        minutes: float,
        hours: float,
        days: float,
        **options: Unpack[ScheduleOptions],
    ) -> AddTask:
        """Return a decorator that adds a task which is called at regular intervals.

        The decorator raises `ApiError`, too.

        Raises:
            ApiError: The interval is not a length of time.
        """
        try:
            period = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)
        except (OverflowError, TypeError, ValueError) as error:
            raise ApiError(f"Invalid interval: {error}.") from error
        return self._adder(functools.partial(every, period=period, **options))

    def schedule(
        self, cron: str, *, timezone: str | tzinfo, **options: Unpack[ScheduleOptions]
    ) -> AddTask:
        """Return a decorator that adds a task which is called at the times of a cron expression.

        The decorator raises `ApiError`.
        """
        return self._adder(functools.partial(at_times, cron=cron, timezone=timezone, **options))

    def add_background_task(
        self, task: Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]]
    ) -> None:
        """Add a task that runs until the worker stops.

        Raises:
            ApiError: `task` is not an async function without parameters, or a coroutine.
        """
        self._add(in_background(task))

    def claim(self, task: Task) -> bool:
        """Remove a task that only one worker may run, and return whether it was present."""
        try:
            self._items.remove(task)
        except ValueError:
            return False
        return True

    def _adder(self, new_task: Callable[[Callable[[], Any]], Task]) -> AddTask:
        def add(function: Function) -> Function:
            self._add(new_task(function))
            return function

        return add
