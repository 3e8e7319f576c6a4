"""Copies events in the file for processes that show events live."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator
from typing import Any

from lightbus.exceptions import TransportError
from lightbus.message import EventMessage
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.rows import message_from

# How often the copies are read, in seconds
POLL_PERIOD = 0.1

# After how long the tail of a process that was killed expires, in seconds
LEASE = 30.0


async def read_tail(database: Database, api_name: str) -> AsyncGenerator[EventMessage | None]:
    """Yield None once events are copied, and then each event of the API that is sent."""
    tail = _Tail(api_name)
    try:
        await database.write(tail.start)
        yield None
        while True:
            messages = await database.write(tail.pop)
            for message in messages:
                yield message
            if not messages:
                await asyncio.sleep(POLL_PERIOD)
    finally:
        with contextlib.suppress(TransportError):  # it expires
            await database.write(tail.stop)


def copy_for_tails(connection: sqlite3.Connection, api_name: str, columns: tuple[Any, ...]) -> None:
    """Copy the event with these columns for each tail of its API."""
    _remove_expired(connection, time.time())
    connection.execute(schema.ADD_TAILED_EVENT, (*columns, api_name))
    _, _, _, body, *_ = columns
    connection.execute(schema.COUNT_TAILED_EVENT, (len(body), api_name))


def _remove_expired(connection: sqlite3.Connection, now: float) -> None:
    if connection.execute(schema.REMOVE_EXPIRED_TAILS, (now,)).rowcount:
        connection.execute(schema.REMOVE_ORPHANED_TAILED_EVENTS)


class _Tail:
    """A row of the table ``tail``. Its methods are operations for `Database.write`."""

    def __init__(self, api_name: str) -> None:
        self._api_name = api_name
        self._id = secrets.token_hex(8)
        self._renew_at = 0.0

    def start(self, connection: sqlite3.Connection) -> None:
        """Have events copied from now on, and remove the copies of tails that have expired."""
        now = time.time()
        _remove_expired(connection, now)
        connection.execute(schema.ADD_TAIL, (self._id, self._api_name, now + LEASE))
        self._renew_at = now + LEASE / 3

    def pop(self, connection: sqlite3.Connection) -> list[EventMessage]:
        """Remove and return the copies that were added since the last call."""
        now = time.time()
        if not 0 <= self._renew_at - now <= LEASE:
            if not connection.execute(schema.RENEW_TAIL, (now + LEASE, self._id)).rowcount:
                self.start(connection)  # it had expired and was removed
            self._renew_at = now + LEASE / 3
        rows = connection.execute(schema.POP_TAILED_EVENTS, (self._id,)).fetchall()
        if rows:
            connection.execute(schema.RESET_TAIL_COUNT, (self._id,))
        return [message_from(columns) for _, *columns in sorted(rows)]

    def stop(self, connection: sqlite3.Connection) -> None:
        """Have no more events copied, and remove the copies."""
        connection.execute(schema.REMOVE_TAIL, (self._id,))
        connection.execute(schema.REMOVE_ORPHANED_TAILED_EVENTS)
