"""`Middleware`: user code that wraps the sending and the handling of every event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from lightbus.exceptions import ApiError
from lightbus.handling.calling import finish, is_generator
from lightbus.handling.threads import handler_thread
from lightbus.message import EventMessage

T = TypeVar("T")

Send = Callable[[EventMessage], Awaitable[None]]
Handle = Callable[[], Awaitable[None]]


class Middleware:
    """Wraps the sending and the handling of events.

    Derive a class from it, and pass an instance to `BusClient.add_middleware`. Each method awaits
    `call_next` exactly once, and may run code before and after. It must not suppress exceptions
    from `call_next`, or cancellation. If a method does not await `call_next`, the event is not sent
    although `fire` returns, or counts as handled although no handler was called.
    """

    async def send(self, message: EventMessage, call_next: Send) -> None:
        """Wrap the sending of an event, from `fire` to the confirmation of the broker.

        An error that this method raises after the confirmation is logged and not raised, because
        the event is stored.

        Args:
            message: The event. A changed copy may be passed to `call_next`.
            call_next: Sends the event.

        Raises:
            TransportError: `call_next` raised it: the event was not sent, or its outcome is
                unknown.
            Exception: A `before_event_sent` hook or an inner middleware raised it.
        """
        await call_next(message)

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        """Wrap the handling of an event, including its hooks.

        `acknowledgement_timeout` limits the duration. An exception from this method counts as
        raised by the handler.

        Args:
            message: The event.
            listener_name: The name of the listener.
            call_next: Calls the handler.

        Raises:
            CancelledError: The timeout has passed, or the worker stops.
            Exception: The handler, a hook or an inner middleware raised it.
        """
        await call_next()


@runtime_checkable
class MetricsSource(Protocol):
    """Middleware that has metrics to serve at ``/metrics``."""

    def metrics_page(self) -> tuple[str, bytes]:
        """Return the content type and the body of the page."""
        ...


async def run_on_handler_thread(function: Callable[[], T]) -> T:
    """Call a sync function on the thread of the handler, and return its result.

    Use it in `Middleware.handle`, and in async hooks for a handler. If the handler is async, the
    function is called on the thread on which the sync hooks of the event run.

    Raises:
        ApiError: No event is being handled here, or the thread is in use.
        Exception: The function raised it.
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
    """Send an event through all of `middleware`. The first one is the outermost.

    Raises:
        IteratorReturned: A method returned an iterator, so its code did not run.
        Exception: A middleware or `send` raised it.
    """
    for one in reversed(middleware):
        send = partial(_call, partial(one.send, call_next=send))
    await send(message)


async def handle_through(
    middleware: Sequence[Middleware], message: EventMessage, listener_name: str, handle: Handle
) -> None:
    """Handle an event through all of `middleware`. The first one is the outermost.

    Raises:
        IteratorReturned: A method returned an iterator, so its code did not run.
        Exception: A middleware or `handle` raised it.
    """
    for one in reversed(middleware):
        handle = partial(_call, partial(one.handle, message, listener_name, handle))
    await handle()


async def _call(method: Callable[..., Awaitable[object]], *args: Any) -> None:
    result = await method(*args)
    if result is not None:
        await finish(result, method)
