"""`TailedEvents`: copies of events in the file, for a process that shows events live."""

from __future__ import annotations

import secrets
import sqlite3
import time
from typing import Any

from lightbus.message import EventMessage
from lightbus_sqlite import schema
from lightbus_sqlite.delivery import message_of

# How often the copies are read, in seconds
TAIL_PERIOD = 0.1

# After how long the tail of a process that was killed expires, in seconds
LEASE = 30.0


def show(connection: sqlite3.Connection, api_name: str, columns: tuple[Any, ...]) -> None:
    """Copy an event, whose values are `columns`, for each tail of its API."""
    _remove_expired(connection, time.time())
    connection.execute(schema.ADD_TAILED_EVENT, (*columns, api_name))
    _, _, _, body, *_ = columns
    connection.execute(schema.COUNT_TAILED_EVENT, (len(body), api_name))


def _remove_expired(connection: sqlite3.Connection, now: float) -> None:
    if connection.execute(schema.REMOVE_EXPIRED_TAILS, (now,)).rowcount:
        connection.execute(schema.REMOVE_EVENTS_OF_NO_TAIL)


class TailedEvents:
    """Copies of the events of one API. Its methods are operations for `Database.write`."""

    def __init__(self, api_name: str) -> None:
        self._api_name = api_name
        self._id = secrets.token_hex(8)
        self._renew_at = 0.0

    def begin(self, connection: sqlite3.Connection) -> None:
        """Start copying events, and remove the copies of tails that have expired."""
        now = time.time()
        _remove_expired(connection, now)
        connection.execute(schema.ADD_TAIL, (self._id, self._api_name, now + LEASE))
        self._renew_at = now + LEASE / 3

    def take(self, connection: sqlite3.Connection) -> list[EventMessage]:
        """Remove and return the copies that were added since the last call."""
        now = time.time()
        if not 0 <= self._renew_at - now <= LEASE:
            if not connection.execute(schema.RENEW_TAIL, (now + LEASE, self._id)).rowcount:
                self.begin(connection)  # it had expired and was removed
            self._renew_at = now + LEASE / 3
        rows = connection.execute(schema.TAKE_TAILED_EVENTS, (self._id,)).fetchall()
        if rows:
            connection.execute(schema.COUNT_FROM_NOTHING, (self._id,))
        return [message_of(columns) for _, *columns in sorted(rows)]

    def end(self, connection: sqlite3.Connection) -> None:
        """Stop copying events, and remove the copies."""
        connection.execute(schema.REMOVE_TAIL, (self._id,))
        connection.execute(schema.REMOVE_EVENTS_OF_NO_TAIL)
