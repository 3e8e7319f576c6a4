"""`Middleware`: code around the sending and around the handling of every event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from lightbus.exceptions import ApiError
from lightbus.handling.calling import finish, is_generator
from lightbus.handling.threads import handler_thread
from lightbus.message import EventMessage

T = TypeVar("T")

Send = Callable[[EventMessage], Awaitable[None]]
Handle = Callable[[], Awaitable[None]]


class Middleware:
    """Code around the sending and the handling of events: derive from it, and give an instance to
    `BusClient.add_middleware`.

    Each method does what it wants, before and after it awaits `call_next` once. What that raises,
    and being cancelled, has to go through. Without that call, an event is not sent, though `fire`
    returns, or counts as handled.
    """

    async def send(self, message: EventMessage, call_next: Send) -> None:
        """Be around the sending of an event, from `fire` to its confirm. What this raises after
        that is logged, for the event is stored.

        Args:
            message: The event; another one, with more in it, can be passed on.
            call_next: Sends it.

        Raises:
            TransportError: What `call_next` raises: the event was not sent, or its outcome is
                unknown.
            Exception: What a `before_event_sent` hook, or an inner middleware, raised.
        """
        await call_next(message)

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        """Be around the handling of an event, hooks included, within `acknowledgement_timeout`
        seconds. What this raises counts as raised by the handler.

        Args:
            message: The event.
            listener_name: Of the listener that handles it.
            call_next: Calls the handler, and raises what it raises.

        Raises:
            CancelledError: The time is over, or the worker stops.
            Exception: What the handler, a hook, or an inner middleware raised.
        """
        await call_next()


async def run_on_handler_thread(function: Callable[[], T]) -> T:
    """Return what a sync function returns, or raise what it raises, on the thread of the handler.

    It is for the `handle` of a middleware, and for async hooks around a handler. Where the handler
    is async, it is the thread that the sync hooks of the event run on.

    Raises:
        ApiError: No event is being handled here, or its thread is not free.
        Exception: What the function raised.
    """
    thread = handler_thread.get(None)
    if thread is None or not thread.is_usable:
        raise ApiError(
            "run_on_handler_thread() was called without a free handler thread. Await it in the "
            "handle() of a middleware, before or after call_next(), or in an async hook around a "
            "handler."
        )
    return cast("T", await thread.call(function))


def check_middleware(middleware: object) -> None:
    """Check that `middleware` has the methods of `Middleware`.

    Raises:
        ApiError: Its `send` or `handle` is missing, or is a generator.
    """
    for name in ("send", "handle"):
        method = getattr(middleware, name, None)
        if not callable(method):
            raise ApiError(
                f"{middleware!r} cannot be a middleware: it has no method {name}(). Derive its "
                f"class from lightbus.handling.middleware.Middleware, and pass an instance."
            )
        if is_generator(method):
            raise ApiError(
                f"{middleware!r} cannot be a middleware: its method {name}() is a generator. "
                f"Replace the yield with `await call_next(...)`."
            )


async def send_through(middleware: Sequence[Middleware], message: EventMessage, send: Send) -> None:
    """Send an event through all of `middleware`, the first of which is the outermost.

    Raises:
        IteratorReturned: One of them returned an iterator, so its work was not done.
        Exception: What one of them, or `send`, raised.
    """
    for one in reversed(middleware):
        send = partial(_call, partial(one.send, call_next=send))
    await send(message)


async def handle_through(
    middleware: Sequence[Middleware], message: EventMessage, listener_name: str, handle: Handle
) -> None:
    """Handle an event through all of `middleware`, the first of which is the outermost.

    Raises:
        IteratorReturned: One of them returned an iterator, so its work was not done.
        Exception: What one of them, or `handle`, raised.
    """
    for one in reversed(middleware):
        handle = partial(_call, partial(one.handle, message, listener_name, handle))
    await handle()


async def _call(method: Callable[..., Awaitable[object]], *args: Any) -> None:
    result = await method(*args)
    if result is not None:
        await finish(result, method)
