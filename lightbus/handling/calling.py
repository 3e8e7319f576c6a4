"""Calls a function of the program, and waits until its work is done."""

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
    """Return the name of `function` for people, for example ``"handle_created"``."""
    function = without_partials(function)
    return str(getattr(function, "__name__", type(function).__name__))


def is_async(function: Function) -> bool:
    """Return whether calling `function` makes a coroutine, as far as this is known beforehand."""
    function = without_partials(function)
    call = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def is_generator(function: Function) -> bool:
    """Return whether calling `function` makes a generator, sync or async, as far as this is known
    beforehand.
    """
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
    """Call `function` without arguments, and return when its work is done.

    Args:
        function: An async function, which runs on the event loop, or a sync one.
        run_sync: Calls a sync function in a thread.

    Raises:
        IteratorReturned: It returned an iterator, so its work was not done.
        Exception: What it raised.
    """
    result = await (function() if is_async(function) else run_sync(function))
    if result is not None:
        await finish(result, function)


async def finish(result: object, function: Function) -> None:
    """Await what a call of `function` returned, where it can be awaited.

    Raises:
        IteratorReturned: The result is an iterator. Nothing would run its code.
        Exception: What the awaited object raised.
    """
    while inspect.isawaitable(result):
        result = await result
    if _is_lazy(result):
        raise IteratorReturned(name_of(function), result)


def _is_lazy(result: object) -> bool:
    if isinstance(result, (Generator, AsyncGenerator)):
        return True
    # A database cursor or an open file is an iterator, too, but its work is done.
    return isinstance(result, (Iterator, AsyncIterator)) and not hasattr(result, "close")
