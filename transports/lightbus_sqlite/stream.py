"""What a listener takes from the file, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable
from lightbus.failure import Failure
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.once import Once
from lightbus.transport import Delivery, DeliveryStream, Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database, Work
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.watcher import Watcher

_log = get_logger(__name__)

# How long any write but a sent event may wait for a lock, in seconds.
OPERATION_TIMEOUT = 30.0

# How long to wait before a file that did not answer is tried again, in seconds.
PAUSE = 1.0

# How long a stop may wait for a file that is locked, in seconds, each time that it has to write.
_STOP_TIMEOUT = 1.5


class SQLiteStream(DeliveryStream):
    """Leases deliveries, some ahead of the listener, and renews the leases while it has them."""

    def __init__(
        self,
        database: Database,
        watcher: Watcher,
        settings: SQLiteSettings,
        subscription: Subscription,
        listener: int,
    ) -> None:
        self.is_closed = False
        self.database = database
        self.subscription = subscription
        self.owner = secrets.token_hex(8)
        self._stopping = Once(self._stop)
        self._closing = Once(self._close)
        self._watcher = watcher
        self._lease = settings.lease
        self._at_once = max(settings.prefetch, subscription.concurrency)
        self._listener = listener
        self._held: deque[SQLiteDelivery] = deque()
        self._unsettled: set[SQLiteDelivery] = set()
        self._wake = asyncio.Event()
        self._last_error: Exception | None = None
        self._taking: asyncio.Task[None] | None = None
        self._renewing = asyncio.create_task(self._renew())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SQLiteDelivery:
        while not self._stopping.has_begun:
            if self._held:
                return self._held.popleft()
            if self._taking is None or self._taking.done():
                self._taking = asyncio.create_task(self._take())
            # Others wait for the same; and what one that gives up had leased must not be forgotten.
            taking = self._taking
            await asyncio.wait({taking})
            if not taking.cancelled():
                taking.result()
        raise StopAsyncIteration

    async def stop(self) -> None:
        await self._stopping()

    async def aclose(self) -> None:
        await self._closing()

    @property
    def problem(self) -> str | None:
        """Why no events are taken, in a sentence; None where they are."""
        if self._stopping.has_begun or self._last_error is None:
            return None
        return f"Listener {self.subscription.listener_name!r} takes no events: {self._last_error}"

    def settled(self, delivery: SQLiteDelivery) -> None:
        """Forget `delivery`."""
        self._unsettled.discard(delivery)

    async def _stop(self) -> None:
        self._wake.set()
        if self._taking is not None:
            await asyncio.wait({self._taking}, timeout=_STOP_TIMEOUT)
            self._taking.cancel()
            await asyncio.wait({self._taking})
            if not self._taking.cancelled():
                self._taking.exception()  # whoever asked for events was told
        held, self._held = list(self._held), deque()
        await self._give_back(held, schema.REQUEUE)

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        self._renewing.cancel()
        await asyncio.wait({self._renewing})
        await self._give_back(list(self._unsettled), schema.RETURN)

    async def _take(self) -> None:
        while not self._stopping.has_begun and not self._held:
            try:
                rows = await self.database.write(self._lease_some, timeout=OPERATION_TIMEOUT)
            except TransportRefused as error:
                self._last_error = error
                raise
            except (TransportUnavailable, TimeoutError) as error:
                self._last_error = error
                _log.warning("A listener can not take events; trying again.", reason=str(error))
                await asyncio.sleep(PAUSE)
                continue
            self._last_error = None
            for row in rows:
                delivery = SQLiteDelivery(self, row)
                self._unsettled.add(delivery)
                self._held.append(delivery)
            if not rows:
                await self._until_available()

    async def _until_available(self) -> None:
        self._wake.clear()
        if not self._stopping.has_begun:
            with self._watcher.watching(self._listener, self._wake.set):
                await self._wake.wait()

    def _lease_some(self, connection: sqlite3.Connection) -> list[Any]:
        now = time.time()
        connection.execute(schema.FREE_WHAT_IS_DUE, (self._listener, now))
        rows = connection.execute(schema.TAKE, (self._listener, self._at_once)).fetchall()
        until = now + self._lease
        connection.executemany(schema.LEASE, [(until, self.owner, row[0]) for row in rows])
        return rows

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            # One by one: what a write leased that was given up meanwhile is nobody's, and ends.
            mine = [delivery.mine for delivery in self._unsettled]
            if mine:
                with contextlib.suppress(TransportError, TimeoutError):
                    await self.database.write(_extending(mine, self._lease), timeout=self._lease)

    async def _give_back(self, deliveries: list[SQLiteDelivery], statement: str) -> None:
        mine = [delivery.mine for delivery in deliveries]
        for delivery in deliveries:
            delivery.is_settled = True
            self.settled(delivery)
        if mine:
            try:
                await self.database.write(
                    lambda connection: connection.executemany(statement, mine).rowcount,
                    timeout=_STOP_TIMEOUT,
                )
            except (TransportError, TimeoutError) as error:
                _log.warning("Events come back when their lease ends.", reason=str(error))


def _extending(mine: list[tuple[int, str, int]], lease: float) -> Work:
    def extend(connection: sqlite3.Connection) -> None:
        until = time.time() + lease
        connection.executemany(schema.RENEW, [(until, *one) for one in mine])

    return extend


class SQLiteDelivery(Delivery):
    """One leased row."""

    def __init__(self, stream: SQLiteStream, row: tuple[Any, ...]) -> None:
        self._id, self.attempt, self.returns, first_failed_at, *message = row
        self.first_failed_at = datetime.fromisoformat(first_failed_at) if first_failed_at else None
        self.message = message_of(message)
        self.is_settled = False
        self._stream = stream

    @property
    def mine(self) -> tuple[int, str, int]:
        """What tells this delivery from every other, of the same row too."""
        return self._id, self._stream.owner, self.attempt

    async def ack(self) -> None:
        await self._settle_until_written(schema.ACK)

    async def requeue(self) -> None:
        await self._settle_until_written(schema.REQUEUE)

    async def retry(self, *, after: float) -> None:
        if after == 0:
            await self._settle_until_written(schema.RETURN)
        else:
            await self._delay(after, attempt=self.attempt + 1, failed_at=datetime.now(UTC))

    async def defer(self, *, after: float) -> None:
        await self._delay(after, attempt=self.attempt)

    async def dead_letter(self, failure: Failure) -> None:
        service = self._stream.subscription.service_name
        story = msgspec.json.encode(failure).decode()

        def bury(connection: sqlite3.Connection) -> int:
            connection.execute(schema.ADD_DEAD_LETTER, (service, story, *self.mine))
            return connection.execute(schema.ACK, self.mine).rowcount

        await self._settle(bury)

    async def _delay(
        self, after: float, *, attempt: int, failed_at: datetime | None = None
    ) -> None:
        if after not in self._stream.subscription.delays:
            raise ValueError(f"{after} s is not one of the delays that the subscription names")

        def move(connection: sqlite3.Connection) -> int:
            at = failed_at.isoformat() if failed_at else None
            connection.execute(schema.DELAY, (attempt, time.time() + after, at, *self.mine))
            return connection.execute(schema.ACK, self.mine).rowcount

        await self._settle(move)

    async def _settle_until_written(self, statement: str) -> None:
        """Settle, and keep the listener from going on until what became of the event is stored."""

        def settle(connection: sqlite3.Connection) -> int:
            return connection.execute(statement, self.mine).rowcount

        while not self._stream.is_closed:
            try:
                await self._settle(settle)
                return
            except TransportUnavailable as error:
                _log.warning(
                    "A listener is paused: what became of its event can not be written.",
                    reason=str(error),
                    event_id=self.message.id,
                )
            except TransportError as error:
                _log.warning(
                    "What became of an event is lost; it comes again.",
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
            settled = await self._stream.database.write(work, timeout=OPERATION_TIMEOUT)
        except TimeoutError as error:
            raise TransportUnavailable("The disk of the SQLite file does not answer.") from error
        self.is_settled = True
        self._stream.settled(self)
        if not settled:
            _log.warning(
                "The lease on an event had ended before it was settled; the event comes again.",
                event_id=self.message.id,
            )


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
