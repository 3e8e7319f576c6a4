"""What a call of the program's functions makes, and when its work is done."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self, cast
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from core.apis import AuthApi
from core.support import MakeBus, eventually
from lightbus import OnError, Worker
from lightbus.exceptions import (
    ApiError,
    InvalidEventListener,
    IteratorReturned,
)
from lightbus.handling.calling import call, is_async, is_generator
from lightbus.handling.hooks import Hooks
from lightbus.handling.middleware import Handle, Middleware, Send
from lightbus.message import EventMessage
from lightbus.testing import RecordingBus
from lightbus_memory.broker import Broker


def generate(**_: Any) -> Iterator[int]:
    yield 1


async def generate_async(**_: Any) -> AsyncIterator[int]:
    yield 1


async def return_generator(**_: Any) -> Iterator[int]:
    return generate()


async def return_coroutine(**_: Any) -> Any:
    return return_generator()


@functools.wraps(generate)
def wrapped(**fields: Any) -> Iterator[int]:
    return generate(**fields)


class Generating:
    """A callable object whose calls make generators."""

    def __call__(self, **_: Any) -> Iterator[int]:
        yield 1

    async def method(self, **_: Any) -> AsyncIterator[int]:
        yield 1


class Numbers:
    """An iterator of the program's own."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return 1


class AsyncNumbers:
    """An async iterator of the program's own."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        return 1


GENERATORS: dict[str, Any] = {
    "sync": generate,
    "async": generate_async,
    "partial": functools.partial(generate, more=1),
    "partial of a partial": functools.partial(functools.partial(generate_async), more=1),
    "callable object": Generating(),
    "method": Generating().method,
    "partial of a callable object": functools.partial(Generating(), more=1),
}

# What makes an iterator, which is not known before it is called.
ITERATING: dict[str, Any] = {
    "wrapper": wrapped,
    "lambda": lambda **fields: generate(**fields),
    "lambda of an async one": lambda **fields: generate_async(**fields),
    "async function": return_generator,
    "async function whose coroutine returns one": return_coroutine,
    "lambda of an async function": lambda **_: return_generator(),
    "map": lambda **_: map(print, [1]),
    "expression": lambda **_: (number for number in [1]),
    "itertools": lambda **_: itertools.chain([1]),
    "iterator": lambda **_: Numbers(),
    "async iterator": lambda **_: AsyncNumbers(),
}


async def here(function: Callable[[], Any]) -> Any:
    """Call a sync function without a thread."""
    return function()


@pytest.mark.parametrize("function", GENERATORS.values(), ids=GENERATORS)
def test_a_generator_is_known_before_it_is_called(function: Any) -> None:
    assert is_generator(function)


@pytest.mark.parametrize(
    "function",
    [here, wrapped, return_generator, functools.partial(here), Mock(), MagicMock(), AsyncMock()],
)
def test_a_function_that_may_work_when_it_is_called_is_not_a_generator(function: Any) -> None:
    assert not is_generator(function)


@pytest.mark.parametrize("function", ITERATING.values(), ids=ITERATING)
async def test_a_call_that_returns_an_iterator_has_failed(function: Any) -> None:
    with pytest.raises(IteratorReturned) as raised:
        await call(function, here)

    assert raised.value.function in str(raised.value)


async def test_an_awaitable_that_an_async_function_returns_is_awaited() -> None:
    done: list[str] = []

    async def inner() -> None:
        done.append("inner")

    async def outer() -> Awaitable[None]:
        return inner()

    await call(outer, here)

    assert done == ["inner"]


@pytest.mark.parametrize("mock", [Mock(), MagicMock(), AsyncMock()])
async def test_a_mock_can_be_called(mock: Mock) -> None:
    await call(mock, here)

    mock.assert_called_once_with()
    assert is_async(mock) is isinstance(mock, AsyncMock)


async def test_a_cursor_and_an_open_file_are_iterators_of_work_that_is_done(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    with (tmp_path / "file").open("w+") as file:
        await call(lambda: connection.execute("CREATE TABLE users (name)"), here)
        await call(lambda: file, here)
    connection.close()


# Everywhere


@pytest.mark.parametrize("handler", GENERATORS.values(), ids=GENERATORS)
def test_a_handler_that_is_a_generator_is_refused_when_it_is_registered(
    make_bus: MakeBus, handler: Any
) -> None:
    bus = make_bus()

    with pytest.raises(InvalidEventListener, match="is a generator"):
        bus.auth.user_deleted.listen(handler, listener_name="generates")
    with pytest.raises(InvalidEventListener, match="is a generator"):
        bus.unregistered.thing.listen(handler, listener_name="generates")


@pytest.mark.parametrize("handler", ITERATING.values(), ids=ITERATING)
async def test_a_handler_that_returns_an_iterator_has_failed(
    make_bus: MakeBus, broker: Broker, handler: Any
) -> None:
    bus = make_bus()
    bus.auth.user_deleted.listen(
        handler, listener_name="iterates", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await eventually(lambda: broker.dead_letters("shop"))

    (letter,) = broker.dead_letters("shop")
    assert letter.failure.error_type == "lightbus.exceptions.IteratorReturned"


@pytest.mark.parametrize("handler", ITERATING.values(), ids=ITERATING)
async def test_a_recording_raises_the_error_of_a_handler_that_returns_an_iterator(
    recording_bus: RecordingBus, handler: Any
) -> None:
    recording_bus.client.register_api(AuthApi)
    recording_bus.auth.user_deleted.listen(handler, listener_name="iterates")
    await recording_bus.auth.user_deleted.fire_async(username="ann")

    with pytest.raises(IteratorReturned):
        await recording_bus.drain()


MOMENTS = (
    "on_start",
    "on_stop",
    "before_event_sent",
    "after_event_sent",
    "before_event_execution",
    "after_event_execution",
)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_hook_that_is_a_generator_is_refused_when_it_is_registered(
    make_bus: MakeBus, moment: str
) -> None:
    hooks: Hooks = getattr(make_bus().client, moment)

    for hook in GENERATORS.values():
        with pytest.raises(ApiError, match="is a generator"):
            hooks(hook)
    with pytest.raises(ApiError, match="not callable"):
        hooks(cast("Any", "hook"))
    assert not hooks


@pytest.mark.parametrize("hook", ITERATING.values(), ids=ITERATING)
async def test_a_hook_that_returns_an_iterator_has_failed(hook: Any) -> None:
    hooks = Hooks()
    hooks(hook)

    with pytest.raises(IteratorReturned):
        await hooks.run()


@pytest.mark.parametrize("task", GENERATORS.values(), ids=GENERATORS)
def test_a_task_that_is_a_generator_is_refused_when_it_is_registered(
    make_bus: MakeBus, task: Any
) -> None:
    client = make_bus().client

    with pytest.raises(ApiError):
        client.every(seconds=1)(task)
    with pytest.raises(ApiError):
        client.schedule("* * * * *")(task)
    with pytest.raises(ApiError):
        client.add_background_task(task)


@pytest.mark.parametrize("task", ITERATING.values(), ids=ITERATING)
async def test_a_scheduled_task_that_returns_an_iterator_has_failed(
    make_bus: MakeBus, task: Any
) -> None:
    bus = make_bus()
    bus.client.every(days=1, also_run_immediately=True)(task)

    with pytest.raises(IteratorReturned):
        await Worker(bus).run()


@pytest.mark.parametrize("task", [return_generator, return_generator()])
async def test_a_background_task_that_returns_an_iterator_has_failed(
    make_bus: MakeBus, task: Any
) -> None:
    bus = make_bus()
    bus.client.add_background_task(task)

    with pytest.raises(IteratorReturned):
        await Worker(bus).run()


class GeneratesInsteadOfSending(Middleware):
    async def send(  # type: ignore[override]
        self, message: EventMessage, call_next: Send
    ) -> AsyncIterator[None]:
        await call_next(message)
        yield


class GeneratesInsteadOfHandling(Middleware):
    def handle(  # type: ignore[override]
        self, message: EventMessage, listener_name: str, call_next: Handle
    ) -> Iterator[Awaitable[None]]:
        yield call_next()


@pytest.mark.parametrize(
    "middleware", [GeneratesInsteadOfSending(), GeneratesInsteadOfHandling(), object()]
)
def test_a_middleware_that_is_a_generator_or_none_is_refused(
    make_bus: MakeBus, middleware: Any
) -> None:
    client = make_bus().client

    with pytest.raises(ApiError):
        client.add_middleware(middleware)
    assert client.middleware == []


class ReturnsIterators(Middleware):
    async def send(self, message: EventMessage, call_next: Send) -> None:
        return cast("None", generate_async())

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        return cast("None", generate())


async def test_a_middleware_that_returns_an_iterator_has_failed(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus, sender = make_bus(), make_bus()
    bus.client.add_middleware(ReturnsIterators())
    bus.auth.user_deleted.listen(
        lambda username: None, listener_name="gather", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    async with Worker(bus):
        with pytest.raises(IteratorReturned):
            await bus.auth.user_deleted.fire_async(username="ann")
        await sender.auth.user_deleted.fire_async(username="bob")
        await eventually(lambda: broker.dead_letters("shop"))
