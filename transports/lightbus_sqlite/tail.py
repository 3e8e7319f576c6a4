"""`Tail`: what is kept in the file for one who looks at events as they come."""

from __future__ import annotations

import secrets
import sqlite3
import time
from typing import Any

from lightbus.message import EventMessage
from lightbus_sqlite import schema
from lightbus_sqlite.delivery import message_of

# How often the file is looked at, in seconds.
TAIL_PERIOD = 0.1

# For how long nothing more is kept for one who was killed, in seconds.
_LEASE = 30.0


def show(connection: sqlite3.Connection, api_name: str, columns: tuple[Any, ...]) -> None:
    """Keep an event, which `columns` are of, for those who look at its API."""
    _remove_expired(connection, time.time())
    connection.execute(schema.ADD_TAILED_EVENT, (*columns, api_name))
    _, _, _, body, *_ = columns
    connection.execute(schema.COUNT_TAILED_EVENT, (len(body), api_name))


def _remove_expired(connection: sqlite3.Connection, now: float) -> None:
    if connection.execute(schema.REMOVE_EXPIRED_TAILS, (now,)).rowcount:
        connection.execute(schema.REMOVE_EVENTS_OF_NO_TAIL)


class Tail:
    """Copies of the events of an API. Its methods are operations for the `Database`."""

    def __init__(self, api_name: str) -> None:
        self._api_name = api_name
        self._id = secrets.token_hex(8)
        self._renew_at = 0.0

    def begin(self, connection: sqlite3.Connection) -> None:
        """Have copies made from now on, and remove those of others who are gone."""
        now = time.time()
        _remove_expired(connection, now)
        connection.execute(schema.ADD_TAIL, (self._id, self._api_name, now + _LEASE))
        self._renew_at = now + _LEASE / 3

    def take(self, connection: sqlite3.Connection) -> list[EventMessage]:
        """Return the events that have come."""
        now = time.time()
        if not 0 <= self._renew_at - now <= _LEASE:
            if not connection.execute(schema.RENEW_TAIL, (now + _LEASE, self._id)).rowcount:
                self.begin(connection)  # others took this one for dead
            self._renew_at = now + _LEASE / 3
        rows = connection.execute(schema.TAKE_TAILED_EVENTS, (self._id,)).fetchall()
        if rows:
            connection.execute(schema.COUNT_FROM_NOTHING, (self._id,))
        return [message_of(columns) for _, *columns in sorted(rows)]

    def end(self, connection: sqlite3.Connection) -> None:
        """Have no more copies made, and remove those that are left."""
        connection.execute(schema.REMOVE_TAIL, (self._id,))
        connection.execute(schema.REMOVE_EVENTS_OF_NO_TAIL)
