"""`Leases`: renews the leases on the deliveries that a stream holds."""

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

    So a handler that blocks the event loop keeps the lease on its event. Renewal pauses while the
    event loop is blocked for longer than `may_block`, because then the process may hang.

    Args:
        database: The database that holds the leases.
        duration: The duration of a lease, in seconds.
        may_block: How long the event loop may be blocked, in seconds.

    Attributes:
        duration: The duration of a lease, in seconds.
        incoming: Deliveries that a write leases which has not returned yet.
    """

    def __init__(self, database: Database, *, duration: float, may_block: float) -> None:
        self.duration = duration
        self.incoming: list[SQLiteDelivery] = []
        self._deliveries: set[SQLiteDelivery] = set()
        self._loop = asyncio.get_running_loop()
        # The loop is checked only as often as leases are renewed.
        self._max_silence = may_block + duration
        self._answered_at = time.monotonic()
        self._stop_renewing = database.repeat(self._renew, every=duration / 3)

    def record_answer(self) -> None:
        """Record that the event loop is not blocked."""
        self._answered_at = time.monotonic()

    def add(self, delivery: SQLiteDelivery) -> None:
        """Renew the lease on `delivery` from now on."""
        self._deliveries.add(delivery)

    def discard(self, delivery: SQLiteDelivery) -> None:
        """Stop renewing the lease on `delivery`."""
        self._deliveries.discard(delivery)

    def unsettled(self) -> list[SQLiteDelivery]:
        """Return the deliveries whose leases are renewed."""
        return list(self._deliveries)

    def close(self) -> None:
        """Stop renewing leases."""
        self._stop_renewing()

    def _renew(self, connection: sqlite3.Connection) -> None:
        held = [*self.unsettled(), *self.incoming]
        if not held:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.record_answer)
        if time.monotonic() - self._answered_at > self._max_silence:
            return
        until = time.time() + self.duration
        for delivery in held:
            if connection.execute(schema.RENEW_LEASE, (until, *delivery.key)).rowcount:
                delivery.leased_until = until
