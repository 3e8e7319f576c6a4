"""Calls a user's function, and waits until its work is done."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from typing import Any

from lightbus.exceptions import IteratorReturned

Function = Callable[..., Any]
RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]


def name_of(function: Function) -> str:
    """Return the name of `function` for messages, for example ``"handle_created"``."""
    function = without_partials(function)
    return str(getattr(function, "__name__", type(function).__name__))


def is_async(function: Function) -> bool:
    """Return whether `function` is known to return a coroutine."""
    function = without_partials(function)
    call = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def is_generator(function: Function) -> bool:
    """Return whether `function` is known to return a generator, sync or async."""
    function = without_partials(function)
    return any(
        inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
        for one in (function, type(function).__call__)
    )


def without_partials(function: Function) -> Function:
    """Return the function that `functools.partial` objects wrap."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


async def call(function: Function, run_sync: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
    """Call `function` without arguments, and wait until its work is done.

    Args:
        function: An async function, which is called on the event loop, or a sync function.
        run_sync: Calls a sync function in a thread.

    Raises:
        IteratorReturned: `function` returned an iterator, so its code did not run.
        Exception: `function` raised it.
    """
    result = await (function() if is_async(function) else run_sync(function))
    if result is not None:
        await finish(result, function)


async def finish(result: object, function: Function) -> None:
    """Await the result of a call of `function` if it is awaitable.

    Raises:
        IteratorReturned: The result is an iterator, so the code of `function` did not run.
        Exception: The awaited object raised it.
    """
    while inspect.isawaitable(result):
        result = await result
    if _is_lazy(result):
        raise IteratorReturned(name_of(function), result)


def _is_lazy(result: object) -> bool:
    if isinstance(result, (Generator, AsyncGenerator)):
        return True
    # A database cursor or an open file is an iterator too, but no code waits to run in it.
    return isinstance(result, (Iterator, AsyncIterator)) and not hasattr(result, "close")
