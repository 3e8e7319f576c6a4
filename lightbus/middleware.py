"""`Middleware`: code around the sending and around the handling of every event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from lightbus.message import EventMessage

Send = Callable[[EventMessage], Awaitable[None]]
Handle = Callable[[], Awaitable[None]]


class Middleware:
    """Derive from it, and give an instance to `bus.client.add_middleware`.

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
        """
        await call_next(message)

    async def handle(self, message: EventMessage, listener_name: str, call_next: Handle) -> None:
        """Be around the handling of an event, hooks included, within `acknowledgement_timeout`.

        Args:
            message: The event.
            listener_name: Of the listener that handles it.
            call_next: Calls the handler, and raises what it raises.
        """
        await call_next()


async def send_through(middleware: Sequence[Middleware], message: EventMessage, send: Send) -> None:
    """Send an event through all of `middleware`, the first of which is the outermost."""
    for one in reversed(middleware):
        send = partial(one.send, call_next=send)
    await send(message)


async def handle_through(
    middleware: Sequence[Middleware], message: EventMessage, listener_name: str, handle: Handle
) -> None:
    """Handle an event through all of `middleware`, the first of which is the outermost."""
    for one in reversed(middleware):
        handle = partial(one.handle, message, listener_name, handle)
    await handle()
