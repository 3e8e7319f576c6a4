"""`SQLiteDelivery`: a leased row of the table ``delivery``, and how it is settled."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from lightbus.exceptions import TransportError, TransportUnavailable
from lightbus.log import get_logger
from lightbus.transport.failure import Failure
from lightbus.transport.kit import SettleOnce, check_delay
from lightbus.transport.records import Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database, Work
from lightbus_sqlite.dead_letters import encode_failure
from lightbus_sqlite.rows import message_from

_log = get_logger(__name__)

# How long to wait before an operation is retried on a file that is locked, in seconds
PAUSE = 1.0


class LeasingStream(Protocol):
    """The stream that leased a delivery, as the delivery uses it."""

    database: Database
    subscription: Subscription
    is_closed: bool

    def start_marking(self) -> SQLiteDelivery | None:
        """Return the next delivery that is to be marked as received; None if there is none.

        A call of `finish_marking` must follow.
        """

    def finish_marking(self, delivery: SQLiteDelivery, *, is_committed: bool) -> None:
        """Record whether the transaction that marks `delivery` was committed."""

    def forget(self, delivery: SQLiteDelivery) -> None:
        """Stop renewing the lease on `delivery`, which was settled."""


class SQLiteDelivery(SettleOnce):
    """One leased row.

    Attributes:
        key: The id of the row and the owner of the lease.
        leased_until: When the lease ends unless it is renewed, in Unix time.
        is_received: Whether the row is marked as received by a listener.
    """

    def __init__(
        self, stream: LeasingStream, row: tuple[Any, ...], owner: str, *, leased_until: float
    ) -> None:
        row_id, self.attempt, self.redeliveries, first_failed_at, *message = row
        self.first_failed_at = datetime.fromisoformat(first_failed_at) if first_failed_at else None
        self.message = message_from(message)
        self.key: tuple[int, str] = (row_id, owner)
        self.leased_until = leased_until
        self.is_received = False
        self._stream = stream

    @property
    def is_leased(self) -> bool:
        """Whether the lease has not ended."""
        return time.time() < self.leased_until

    def mark_received(self, connection: sqlite3.Connection) -> None:
        """Mark the row as received, so that a crash counts as an attempt.

        If the lease has ended, the row stays unmarked and `is_received` stays False.
        """
        marked = connection.execute(schema.MARK_RECEIVED, (*self.key, time.time()))
        self.is_received = marked.rowcount == 1

    async def ack(self) -> None:
        await self._settle_until_committed(schema.ACK)

    async def requeue(self) -> None:
        await self._settle_until_committed(schema.REQUEUE)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            await self._settle_until_committed(schema.REDELIVER)
            return
        failed_at = datetime.now(UTC).isoformat() if counts else None

        def delay(connection: sqlite3.Connection) -> int:
            row = (self.attempt + counts, time.time() + after, failed_at, *self.key)
            connection.execute(schema.ADD_DELAYED_COPY, row)
            return connection.execute(schema.ACK, self.key).rowcount

        await self._settle(delay)

    async def dead_letter(self, failure: Failure) -> None:
        service_name = self._stream.subscription.service_name
        row = (service_name, encode_failure(failure), *self.key)

        def move(connection: sqlite3.Connection) -> int:
            connection.execute(schema.DEAD_LETTER_DELIVERY, row)
            return connection.execute(schema.ACK, self.key).rowcount

        await self._settle(move)

    async def _settle_until_committed(self, statement: str) -> None:
        """Settle, and retry while the file is unavailable, which pauses the listener."""

        def settle(connection: sqlite3.Connection) -> int:
            return connection.execute(statement, self.key).rowcount

        while not self._stream.is_closed:
            try:
                await self._settle(settle)
                return
            except TransportUnavailable as error:
                _log.warning(
                    "Could not settle the event in the SQLite file; listener paused, retrying.",
                    reason=str(error),
                    event_id=self.message.id,
                )
            except TransportError as error:
                _log.warning(
                    "Settlement lost; the event will be redelivered.",
                    reason=str(error),
                    event_id=self.message.id,
                )
                return
            await asyncio.sleep(PAUSE)

    async def _settle(self, work: Work) -> None:
        if not self.can_settle():
            return
        is_settled = await self._write_and_mark_next(work)
        self.is_settled = True
        self._stream.forget(self)
        if not is_settled:
            _log.warning(
                "The lease on the event ended before it was settled; it will be redelivered.",
                event_id=self.message.id,
            )

    async def _write_and_mark_next(self, work: Work) -> Any:
        """Do `work`, and mark the next delivery as received in the same transaction, because a
        second transaction would double the cost of an event.
        """
        following = self._stream.start_marking()
        if following is None:
            return await self._stream.database.write(work)

        def settle_and_mark(connection: sqlite3.Connection) -> Any:
            result = work(connection)
            following.mark_received(connection)
            return result

        is_committed = False
        try:
            result = await self._stream.database.write(settle_and_mark)
            is_committed = True
        finally:
            self._stream.finish_marking(following, is_committed=is_committed)
        return result
