"""Dead letters of a service on an SQLite file, for the tests of their commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from command import TIMEOUT
from lightbus import Bus, EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport

EDITOR = """
import pathlib, sys
file = pathlib.Path(sys.argv[1])
file.write_text(file.read_text().replace({old!r}, {new!r}))
"""


Run = Callable[..., tuple[int, str, str]]


async def transport_of(bus: Bus) -> SQLiteTransport:
    transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
    assert isinstance(transport, SQLiteTransport)
    return transport


def subscription_of(bus: Bus, listener_name: str) -> Subscription:
    (listener,) = [one for one in bus.client.listeners if one.name == listener_name]
    return listener.subscription("shop")


async def add_dead_letter(
    bus: Bus,
    username: str = "ann",
    *,
    listener: str = "welcome",
    error: Exception | None = None,
    event_name: str = "user_created",
    minutes_ago: float = 1,
    body: bytes | None = None,
    message: EventMessage | None = None,
) -> EventMessage:
    """Add a dead letter."""
    message = message or EventMessage.create(
        "auth", event_name, {"username": username, "email": "e"}
    )
    if body is not None:
        message = EventMessage(api_name="auth", event_name=event_name, body=body)
    failed_at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    error = error or LookupError(f"no {username}")
    failure = Failure(
        error_type=f"builtins.{type(error).__name__}",
        error_message=str(error),
        traceback=f"Traceback of {username} [not markup]",
        failed_at=failed_at,
        first_failed_at=failed_at - timedelta(hours=1),
        listener=listener,
        attempt=3,
        service_name="shop",
        process_name="worker-1",
    )
    await (await transport_of(bus)).add_dead_letter("shop", message, failure, timeout=TIMEOUT)
    return message


async def left(bus: Bus) -> list[str]:
    """Return the ids of the dead letters."""
    transport = await transport_of(bus)
    assert isinstance(transport, SQLiteTransport)
    return [letter.message.id async for letter in transport.dead_letters("shop")]


async def waiting_for(bus: Bus, listener_name: str) -> list[tuple[Any, int]]:
    """Return the parameters and the attempt of each event that waits for a listener."""
    transport, subscription = await transport_of(bus), subscription_of(bus, listener_name)
    assert isinstance(transport, SQLiteTransport)
    count = (await transport.stats(subscription)).total
    stream = await transport.subscribe(subscription)
    taken = [await anext(stream) for _ in range(count)]
    return [(delivery.message.kwargs, delivery.attempt) for delivery in taken]
