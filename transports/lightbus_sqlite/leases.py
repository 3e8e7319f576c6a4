"""`Leases`: keeps other workers from the deliveries that a stream holds."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time

from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.delivery import SQLiteDelivery


class Leases:
    """The leases of one stream, renewed on the thread of its database.

    So a handler that blocks the event loop keeps its event. If the loop does not answer for longer
    than a handler may take, the leases end, because the process may be stuck.

    Args:
        database: Where they are.
        duration: How long a lease lasts, in seconds.
        may_block: How long the event loop may be blocked, in seconds.

    Attributes:
        arriving: What the thread leases now, for a call that still waits for it.
    """

    def __init__(self, database: Database, *, duration: float, may_block: float) -> None:
        self.duration = duration
        self.arriving: list[SQLiteDelivery] = []
        self._deliveries: set[SQLiteDelivery] = set()
        self._loop = asyncio.get_running_loop()
        # The loop is asked only as often as leases are renewed.
        self._patience = may_block + duration
        self._answered_at = time.monotonic()
        self._end = database.repeat(self._renew, every=duration / 3)

    def note_answer(self) -> None:
        """Note that the event loop is not blocked."""
        self._answered_at = time.monotonic()

    def add(self, delivery: SQLiteDelivery) -> None:
        """Keep the lease of `delivery`."""
        self._deliveries.add(delivery)

    def discard(self, delivery: SQLiteDelivery) -> None:
        """Keep it no longer."""
        self._deliveries.discard(delivery)

    def unsettled(self) -> list[SQLiteDelivery]:
        """Return the deliveries whose leases are kept."""
        return list(self._deliveries)

    def close(self) -> None:
        """Renew no more."""
        self._end()

    def _renew(self, connection: sqlite3.Connection) -> None:
        held = [*self.unsettled(), *self.arriving]
        if not held:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and answers no more
            self._loop.call_soon_threadsafe(self.note_answer)
        if time.monotonic() - self._answered_at > self._patience:
            return
        until = time.time() + self.duration
        for delivery in held:
            if connection.execute(schema.RENEW, (until, *delivery.key)).rowcount:
                delivery.leased_until = until
