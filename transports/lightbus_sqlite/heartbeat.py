"""`Heartbeat`: records in the file that a worker consumes the queue of a listener."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable

from lightbus.exceptions import TransportError
from lightbus.log import get_logger
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database

_log = get_logger(__name__)

# After how long the row of a worker that was killed expires, in seconds
LIFETIME = 60.0

# How often the row is renewed, in seconds
RENEWAL_PERIOD = 20.0


class Heartbeat:
    """A row of the table ``consumer``, which exists while a stream is open."""

    def __init__(self, database: Database, listener_name: str) -> None:
        self._database = database
        self._listener_name = listener_name
        self._id = secrets.token_hex(8)
        self._listener = 0
        self._stop_renewing: Callable[[], None] = _do_nothing

    def add(self, connection: sqlite3.Connection, listener: int) -> None:
        """Add the row in the transaction that declares the listener."""
        self._listener = listener
        now = time.time()
        connection.execute(schema.REMOVE_EXPIRED_CONSUMERS, (now,))
        connection.execute(schema.ADD_CONSUMER, (self._id, listener, now + LIFETIME))

    def start(self) -> None:
        """Renew the row, on the thread of the database, until `stop` is called."""
        self._stop_renewing = self._database.repeat(self._renew, every=RENEWAL_PERIOD)

    def _renew(self, connection: sqlite3.Connection) -> None:
        row = (self._id, time.time() + LIFETIME, self._listener)
        if not connection.execute(schema.RENEW_CONSUMER, row).rowcount:
            _log.error(
                "The queue of the listener was removed; restart the worker.",
                listener=self._listener_name,
            )

    async def stop(self, *, timeout: float) -> None:
        """Remove the row. If that fails within `timeout` seconds, the row expires."""
        self._stop_renewing()
        with contextlib.suppress(TransportError):
            await self._database.write(
                lambda connection: connection.execute(schema.REMOVE_CONSUMER, (self._id,)),
                timeout=timeout,
            )


def _do_nothing() -> None:
    """Do nothing, before renewal has started."""
