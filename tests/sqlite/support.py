"""What the tests of the SQLite transport share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport
from lightbus_sqlite.settings import SQLiteSettings

# Long enough for a slow machine; a test that waits so long has failed.
PATIENCE = 10.0

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="gather",
    api_name="auth",
    events=frozenset({"user_deleted"}),
    concurrency=1,
    acknowledgement_timeout=60.0,
    delays=frozenset({0.1, 60.0}),
)


def made_transport(file: Path, **settings: Any) -> SQLiteTransport:
    """Return a transport over `file` that is not open."""
    return SQLiteTransport(SQLiteSettings(path=str(file), **settings), client_name="test")


async def open_transport(file: Path, **settings: Any) -> SQLiteTransport:
    """Return an open transport over `file`, at which events are kept for `SUBSCRIPTION`."""
    transport = made_transport(file, **settings)
    await transport.open(timeout=PATIENCE)
    await transport.declare(SUBSCRIPTION, timeout=PATIENCE)
    return transport


def message(username: str) -> EventMessage:
    """Return an event that `SUBSCRIPTION` wants."""
    return EventMessage.create("auth", "user_deleted", {"username": username})


def name_of(delivery: Delivery) -> str:
    """Return what `message` was given."""
    return str(delivery.message.kwargs["username"])
