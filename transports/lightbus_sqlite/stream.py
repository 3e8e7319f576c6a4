"""`SQLiteStream`: leases deliveries from the file, and hands them to a listener."""

from __future__ import annotations

import asyncio
import functools
import secrets
import sqlite3
import time
from collections import deque
from typing import Self

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable
from lightbus.log import get_logger
from lightbus.transport.contract import DeliveryStream
from lightbus.transport.kit import SharedTask
from lightbus.transport.records import Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.delivery import OPERATION_TIMEOUT, PAUSE, Leaseholder, SQLiteDelivery
from lightbus_sqlite.leases import Leases
from lightbus_sqlite.presence import Presence
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.watcher import Watcher

_log = get_logger(__name__)

# How long a stop may wait for a file that is locked, in seconds, each time that it has to write.
_STOP_TIMEOUT = 1.5


class SQLiteStream(DeliveryStream, Leaseholder):
    """Leases deliveries, some ahead of the listener, and hands them over in order."""

    def __init__(
        self,
        database: Database,
        watcher: Watcher,
        settings: SQLiteSettings,
        subscription: Subscription,
        listener: int,
        *,
        presence: Presence,
    ) -> None:
        self.is_closed = False
        self.database = database
        self.subscription = subscription
        self._stopping = SharedTask(self._stop)
        self._closing = SharedTask(self._close)
        self._watcher = watcher
        self._at_once = max(settings.prefetch, subscription.concurrency)
        self._listener = listener
        # What is leased and was not received: not yet begun, being marked as begun, and begun.
        self._ahead: deque[SQLiteDelivery] = deque()
        self._beginning: set[SQLiteDelivery] = set()
        self._begun: deque[SQLiteDelivery] = deque()
        self._receivers = 0
        # Leases that ended before the listener received the delivery.
        self._lapsed: list[SQLiteDelivery] = []
        self._leases = Leases(
            database, duration=settings.lease, may_block=subscription.acknowledgement_timeout
        )
        self._wake = asyncio.Event()
        self._last_error: Exception | None = None
        self._taking: asyncio.Task[None] | None = None
        self._presence = presence
        presence.keep()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SQLiteDelivery:
        while not self._stopping.has_started:
            while self._begun:
                delivery = self._begun.popleft()
                if delivery.is_leased:
                    return delivery
                self._drop(delivery)
            if self._taking is None or self._taking.done():
                self._taking = asyncio.create_task(self._take())
            # Others wait for the same; and what one that gives up had leased must not be forgotten.
            taking = self._taking
            self._receivers += 1
            try:
                await asyncio.wait({taking})
            finally:
                self._receivers -= 1
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
        if self._stopping.has_started or self._last_error is None:
            return None
        return f"Listener {self.subscription.listener_name!r} takes no events: {self._last_error}"

    def settled(self, delivery: SQLiteDelivery) -> None:
        self._leases.discard(delivery)

    def begin_next(self) -> SQLiteDelivery | None:
        if self._stopping.has_started or not self._ahead:
            return None
        delivery = self._ahead.popleft()
        self._beginning.add(delivery)
        return delivery

    def end_beginning(self, delivery: SQLiteDelivery, *, is_committed: bool) -> None:
        if delivery not in self._beginning:
            return  # it was requeued meanwhile
        self._beginning.remove(delivery)
        if not is_committed:
            self._ahead.appendleft(delivery)
        elif delivery.is_begun:
            self._begun.append(delivery)
        else:
            self._drop(delivery)

    def _drop(self, delivery: SQLiteDelivery) -> None:
        self._leases.discard(delivery)
        self._lapsed.append(delivery)

    async def _stop(self) -> None:
        self._wake.set()
        if self._taking is not None:
            await asyncio.wait({self._taking}, timeout=_STOP_TIMEOUT)
            self._taking.cancel()
            await asyncio.wait({self._taking})
            if not self._taking.cancelled():
                self._taking.exception()  # whoever asked for events was told
        not_received = [*self._begun, *self._beginning, *self._ahead]
        self._begun.clear()
        self._beginning.clear()
        self._ahead.clear()
        await self._give_back(not_received, schema.REQUEUE)

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        self._leases.close()
        await asyncio.gather(
            self._give_back(self._leases.unsettled(), schema.RETURN),
            self._presence.end(timeout=_STOP_TIMEOUT),
        )

    async def _take(self) -> None:
        while self._receivers and not self._begun and not self._stopping.has_started:
            is_idle = False
            try:
                if self._ahead:
                    await self._begin_ahead()
                else:
                    is_idle = not await self._lease_more()
            except TransportRefused as error:
                self._last_error = error
                raise
            except (TransportUnavailable, TimeoutError) as error:
                self._last_error = error
                _log.warning("A listener cannot take events; trying again.", reason=str(error))
                await asyncio.sleep(PAUSE)
                continue
            self._last_error = None
            if is_idle:
                await self._until_available()

    async def _begin_ahead(self) -> None:
        """Mark a delivery as begun for each receiver."""
        chosen = [d for _ in range(self._receivers) if (d := self.begin_next()) is not None]

        def begin(connection: sqlite3.Connection) -> None:
            for delivery in chosen:
                delivery.begin(connection)

        is_committed = False
        try:
            await self.database.write(begin, timeout=OPERATION_TIMEOUT)
            is_committed = True
        finally:
            for delivery in chosen if is_committed else reversed(chosen):
                self.end_beginning(delivery, is_committed=is_committed)

    async def _lease_more(self) -> bool:
        """Lease deliveries, and begin one for each receiver; return whether there were any."""
        if self._lapsed:
            _log.warning(
                "Leases ended before a listener received the events; the events are requeued.",
                events=len(self._lapsed),
                listener=self.subscription.listener_name,
            )
        lapsed, self._lapsed = self._lapsed, []
        # Renewed while the loop is blocked, and not once this call has given up.
        leased = self._leases.arriving = []
        self._leases.note_answer()
        try:
            lease = functools.partial(self._lease_some, leased, [one.key for one in lapsed])
            await self.database.write(lease, timeout=OPERATION_TIMEOUT)
            for delivery in leased:
                self._leases.add(delivery)
                (self._begun if delivery.is_begun else self._ahead).append(delivery)
        finally:
            self._leases.arriving = []
        return bool(leased)

    async def _until_available(self) -> None:
        self._wake.clear()
        if not self._stopping.has_started:
            with self._watcher.watching(self._listener, self._wake.set):
                await self._wake.wait()

    def _lease_some(
        self,
        leased: list[SQLiteDelivery],
        lapsed: list[tuple[int, str]],
        connection: sqlite3.Connection,
    ) -> None:
        now, owner = time.time(), secrets.token_hex(8)
        until = now + self._leases.duration
        connection.executemany(schema.REQUEUE, lapsed)
        connection.execute(schema.FREE_WHAT_IS_DUE, (self._listener, now))
        rows = connection.execute(schema.TAKE, (self._listener, self._at_once)).fetchall()
        leased[:] = [SQLiteDelivery(self, row, owner, leased_until=until) for row in rows]
        for delivery in leased[: self._receivers]:
            delivery.is_begun = True
        leases = [(until, owner, one.is_begun, one.key[0]) for one in leased]
        connection.executemany(schema.LEASE, leases)

    async def _give_back(self, deliveries: list[SQLiteDelivery], statement: str) -> None:
        mine = [delivery.key for delivery in deliveries]
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
                _log.warning("Events are redelivered when their lease ends.", reason=str(error))
