"""Calls a user's functions before and after the bus starts, stops, sends or handles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

from lightbus.exceptions import ApiError, CallbackExited
from lightbus.handling.calling import RunSync, call, is_generator, name_of
from lightbus.handling.signatures import signature_of
from lightbus.handling.threads import call_in_new_thread

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Hooks:
    """The hooks for one kind of occasion. Use it as a decorator, with or without parentheses.

    An async hook runs on the event loop, and a sync hook in a thread. Sync hooks for a sync handler
    run on the thread of the handler. Context variables that a hook sets are visible to the next
    hooks and to the handler. A hook receives only the arguments for which it has parameters. Unless
    documented otherwise, an error of a hook is raised to the caller, and later hooks are not
    called.

    Args:
        arguments: Arguments of every call of the hooks.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self._hooks: list[Callable[..., Any]] = []

    def __bool__(self) -> bool:
        return bool(self._hooks)

    @overload
    def __call__(self, hook: Hook) -> Hook: ...
    @overload
    def __call__(self) -> Callable[[Hook], Hook]: ...
    def __call__(self, hook: Hook | None = None) -> Hook | Callable[[Hook], Hook]:
        """Add `hook` after the others, and return it. Without `hook`, return a decorator.

        Raises:
            ApiError: `hook` is not callable, or is a generator.
        """
        if hook is None:
            return self
        if not callable(hook):
            raise ApiError(f"{hook!r} cannot be a hook, because it is not callable.")
        if is_generator(hook):
            raise ApiError(
                f"{name_of(hook)}() cannot be a hook, because it is a generator, and nothing would "
                "run its code. Remove the yield."
            )
        self._hooks.append(hook)
        return hook

    async def run(self, run_sync: RunSync = call_in_new_thread, /, **arguments: Any) -> None:
        """Call the hooks in the order in which they were added.

        Args:
            run_sync: Calls a sync hook in a thread.
            arguments: Further arguments of the hooks.

        Raises:
            CallbackExited: A hook tried to exit the process, or cancelled itself.
            IteratorReturned: A hook returned an iterator, so its code did not run.
            Exception: A hook raised it. Later hooks are not called.
        """
        all_arguments = {**self._arguments, **arguments}
        for hook in self._hooks:
            try:
                await call(partial(hook, **_accepted_arguments(hook, all_arguments)), run_sync)
            except Exception:
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                    raise
                raise CallbackExited("Hook", name_of(hook), error) from error


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _accepted_arguments(hook: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    parameters = signature_of(hook).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}
