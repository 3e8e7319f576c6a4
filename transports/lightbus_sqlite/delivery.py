"""`SQLiteDelivery`: one leased row of the file, and how it is settled."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from lightbus.exceptions import TransportError, TransportUnavailable
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery
from lightbus.transport.failure import Failure
from lightbus.transport.kit import check_delay
from lightbus.transport.records import Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database, Work

_log = get_logger(__name__)

# How long any write but a sent event may wait for a lock, in seconds.
OPERATION_TIMEOUT = 30.0

# How long to wait before a file that did not answer is tried again, in seconds.
PAUSE = 1.0


class Leaseholder(Protocol):
    """The stream that leased a delivery."""

    database: Database
    subscription: Subscription
    is_closed: bool

    def begin_next(self) -> SQLiteDelivery | None:
        """Return the delivery that the listener receives next, to be marked as begun; None where
        there is none. `end_beginning` follows.
        """

    def end_beginning(self, delivery: SQLiteDelivery, *, is_committed: bool) -> None:
        """Note whether the transaction that marked `delivery` was committed."""

    def settled(self, delivery: SQLiteDelivery) -> None:
        """Forget `delivery`."""


class SQLiteDelivery(Delivery):
    """One leased row.

    Attributes:
        key: What tells this lease of the row from every other: the row's id and the lease's owner.
        leased_until: When the lease ends, unless it is renewed, in Unix time.
        is_begun: Whether the file says that a listener received it.
        is_settled: Whether it was settled, or given back.
    """

    def __init__(
        self, stream: Leaseholder, row: tuple[Any, ...], owner: str, *, leased_until: float
    ) -> None:
        row_id, self.attempt, self.redeliveries, first_failed_at, *message = row
        self.first_failed_at = datetime.fromisoformat(first_failed_at) if first_failed_at else None
        self.message = message_of(message)
        self.key: tuple[int, str] = (row_id, owner)
        self.leased_until = leased_until
        self.is_begun = False
        self.is_settled = False
        self._stream = stream

    @property
    def is_leased(self) -> bool:
        """Whether other workers are still kept from it."""
        return time.time() < self.leased_until

    def begin(self, connection: sqlite3.Connection) -> None:
        """Record that a listener receives it, so that a crash counts as an attempt. Where the lease
        has ended, `is_begun` stays False.
        """
        marked = connection.execute(schema.BEGIN, (*self.key, time.time()))
        self.is_begun = marked.rowcount == 1

    async def ack(self) -> None:
        await self._settle_until_written(schema.ACK)

    async def requeue(self) -> None:
        await self._settle_until_written(schema.REQUEUE)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            await self._settle_until_written(schema.RETURN)
            return
        failed_at = datetime.now(UTC).isoformat() if counts else None

        def move(connection: sqlite3.Connection) -> int:
            row = (self.attempt + counts, time.time() + after, failed_at, *self.key)
            connection.execute(schema.DELAY, row)
            return connection.execute(schema.ACK, self.key).rowcount

        await self._settle(move)

    async def dead_letter(self, failure: Failure) -> None:
        service = self._stream.subscription.service_name
        story = msgspec.json.encode(failure).decode()

        def add(connection: sqlite3.Connection) -> int:
            connection.execute(schema.ADD_DEAD_LETTER, (service, story, *self.key))
            return connection.execute(schema.ACK, self.key).rowcount

        await self._settle(add)

    async def _settle_until_written(self, statement: str) -> None:
        """Settle, and return when that is stored, so that the listener waits."""

        def settle(connection: sqlite3.Connection) -> int:
            return connection.execute(statement, self.key).rowcount

        while not self._stream.is_closed:
            try:
                await self._settle(settle)
                return
            except TransportUnavailable as error:
                _log.warning(
                    "Could not settle the event in the SQLite file; listener paused.",
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
        if self.is_settled:
            _log.debug("A delivery was settled before.", event_id=self.message.id)
            return
        try:
            settled = await self._write_with_next(work)
        except TimeoutError as error:
            raise TransportUnavailable("The disk of the SQLite file does not answer.") from error
        self.is_settled = True
        self._stream.settled(self)
        if not settled:
            _log.warning(
                "The lease on an event ended before it was settled; the event will be redelivered.",
                event_id=self.message.id,
            )

    async def _write_with_next(self, work: Work) -> Any:
        """Do `work`, and mark the next delivery as started in the same transaction, because a
        separate one would double the cost of an event.
        """
        following = self._stream.begin_next()
        if following is None:
            return await self._stream.database.write(work, timeout=OPERATION_TIMEOUT)

        def settle_and_begin(connection: sqlite3.Connection) -> Any:
            settled = work(connection)
            following.begin(connection)
            return settled

        is_committed = False
        try:
            settled = await self._stream.database.write(settle_and_begin, timeout=OPERATION_TIMEOUT)
            is_committed = True
        finally:
            self._stream.end_beginning(following, is_committed=is_committed)
        return settled


def message_of(columns: list[Any]) -> EventMessage:
    """Return the event that a row holds."""
    message_id, api, name, body, version, fired_at, service, traceparent = columns
    return EventMessage(
        id=message_id,
        api_name=api,
        event_name=name,
        body=body,
        version=version,
        fired_at=datetime.fromisoformat(fired_at),
        service_name=service,
        traceparent=traceparent,
    )
