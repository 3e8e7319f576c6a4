"""`SQLiteStream`: leases deliveries in the file and yields them to a listener."""

from __future__ import annotations

import asyncio
import functools
import secrets
import sqlite3
import time
from collections import deque

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable
from lightbus.log import get_logger
from lightbus.transport.contract import DeliveryStream
from lightbus.transport.kit import SharedTask
from lightbus.transport.records import Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.delivery import PAUSE, LeasingStream, SQLiteDelivery
from lightbus_sqlite.heartbeat import Heartbeat
from lightbus_sqlite.leases import Leases
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.watcher import Watcher

_log = get_logger(__name__)

# How long each write may wait for a locked file while the stream stops, in seconds
_STOP_TIMEOUT = 1.5


class SQLiteStream(DeliveryStream, LeasingStream):
    """Leases deliveries, some of them before the listener needs them, and yields them in order."""

    def __init__(
        self,
        database: Database,
        watcher: Watcher,
        settings: SQLiteSettings,
        subscription: Subscription,
        listener: int,
        *,
        heartbeat: Heartbeat,
    ) -> None:
        self.is_closed = False
        self.database = database
        self.subscription = subscription
        self._stopping = SharedTask(self._stop)
        self._closing = SharedTask(self._close)
        self._watcher = watcher
        self._prefetch = max(settings.prefetch, subscription.concurrency)
        self._listener = listener
        # Each delivery that no task has received is in one of these: leased only; being marked as
        # received, in a transaction; or marked as received, and next for a task.
        self._prefetched: deque[SQLiteDelivery] = deque()
        self._marking: set[SQLiteDelivery] = set()
        self._ready: deque[SQLiteDelivery] = deque()
        # The number of tasks that wait for a delivery
        self._receivers = 0
        # Deliveries whose lease ended before a task received them
        self._expired: list[SQLiteDelivery] = []
        self._leases = Leases(
            database, duration=settings.lease, may_block=subscription.acknowledgement_timeout
        )
        self._wake = asyncio.Event()
        self._last_error: TransportError | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._heartbeat = heartbeat
        heartbeat.start()

    async def __anext__(self) -> SQLiteDelivery:
        while not self._stopping.has_started:
            while self._ready:
                delivery = self._ready.popleft()
                if delivery.is_leased:
                    return delivery
                self._expire(delivery)
            if self._fetching is None or self._fetching.done():
                self._fetching = asyncio.create_task(self._fetch())
            # A task of its own, because others wait for it, too, and because a caller that is
            # cancelled must not lose what it leased.
            fetching = self._fetching
            self._receivers += 1
            try:
                await asyncio.wait({fetching})
            finally:
                self._receivers -= 1
            if not fetching.cancelled():
                fetching.result()
        raise StopAsyncIteration

    async def stop(self) -> None:
        await self._stopping()

    async def aclose(self) -> None:
        await self._closing()

    @property
    def failure(self) -> str | None:
        """Why the stream cannot consume events, in a sentence; None if it can."""
        if self._stopping.has_started or self._last_error is None:
            return None
        name = self.subscription.listener_name
        return f"Listener {name!r} cannot consume events: {self._last_error}"

    def forget(self, delivery: SQLiteDelivery) -> None:
        self._leases.discard(delivery)

    def start_marking(self) -> SQLiteDelivery | None:
        if self._stopping.has_started or not self._prefetched:
            return None
        delivery = self._prefetched.popleft()
        self._marking.add(delivery)
        return delivery

    def finish_marking(self, delivery: SQLiteDelivery, *, is_committed: bool) -> None:
        if delivery not in self._marking:
            return  # it was requeued meanwhile
        self._marking.remove(delivery)
        if not is_committed:
            self._prefetched.appendleft(delivery)
        elif delivery.is_received:
            self._ready.append(delivery)
        else:
            self._expire(delivery)

    def _expire(self, delivery: SQLiteDelivery) -> None:
        self._leases.discard(delivery)
        self._expired.append(delivery)

    async def _stop(self) -> None:
        self._wake.set()
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=_STOP_TIMEOUT)
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
            if not self._fetching.cancelled():
                self._fetching.exception()  # which the waiting tasks raise
        not_received = [*self._ready, *self._marking, *self._prefetched]
        self._ready.clear()
        self._marking.clear()
        self._prefetched.clear()
        await self._release(not_received, schema.REQUEUE)

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        self._leases.close()
        await asyncio.gather(
            self._release(self._leases.unsettled(), schema.REDELIVER),
            self._heartbeat.stop(timeout=_STOP_TIMEOUT),
        )

    async def _fetch(self) -> None:
        """Make deliveries ready until no task waits for one."""
        while self._receivers and not self._ready and not self._stopping.has_started:
            is_empty = False
            try:
                if self._prefetched:
                    await self._mark_prefetched()
                else:
                    is_empty = not await self._lease_batch()
            except TransportRefused as error:
                self._last_error = error
                raise
            except TransportUnavailable as error:
                self._last_error = error
                _log.warning(
                    "Could not read events from the SQLite file; listener paused, retrying.",
                    listener=self.subscription.listener_name,
                    reason=str(error),
                )
                await asyncio.sleep(PAUSE)
                continue
            self._last_error = None
            if is_empty:
                await self._wait_for_events()

    async def _mark_prefetched(self) -> None:
        """Mark a delivery as received for each task that waits."""
        chosen = [d for _ in range(self._receivers) if (d := self.start_marking()) is not None]

        def mark(connection: sqlite3.Connection) -> None:
            for delivery in chosen:
                delivery.mark_received(connection)

        is_committed = False
        try:
            await self.database.write(mark)
            is_committed = True
        finally:
            for delivery in chosen if is_committed else reversed(chosen):
                self.finish_marking(delivery, is_committed=is_committed)

    async def _lease_batch(self) -> bool:
        """Lease deliveries, and mark one as received for each task that waits; return whether
        there were any.
        """
        if self._expired:
            _log.warning(
                "Leases ended before the listener received the events; events requeued.",
                events=len(self._expired),
                listener=self.subscription.listener_name,
            )
        expired, self._expired = self._expired, []
        # Renewed while the event loop is blocked, but not after this call was cancelled.
        leased = self._leases.incoming = []
        self._leases.record_answer()
        try:
            lease = functools.partial(self._lease, leased, [one.key for one in expired])
            await self.database.write(lease)
            for delivery in leased:
                self._leases.add(delivery)
                (self._ready if delivery.is_received else self._prefetched).append(delivery)
        finally:
            self._leases.incoming = []
        return bool(leased)

    async def _wait_for_events(self) -> None:
        self._wake.clear()
        if not self._stopping.has_started:
            with self._watcher.watch(self._listener, self._wake.set):
                await self._wake.wait()

    def _lease(
        self,
        leased: list[SQLiteDelivery],
        expired: list[tuple[int, str]],
        connection: sqlite3.Connection,
    ) -> None:
        now, owner = time.time(), secrets.token_hex(8)
        until = now + self._leases.duration
        connection.executemany(schema.REQUEUE, expired)
        connection.execute(schema.RELEASE_DUE, (self._listener, now))
        rows = connection.execute(schema.SELECT_READY, (self._listener, self._prefetch)).fetchall()
        leased[:] = [SQLiteDelivery(self, row, owner, leased_until=until) for row in rows]
        for delivery in leased[: self._receivers]:
            delivery.is_received = True
        leases = [(until, owner, one.is_received, one.key[0]) for one in leased]
        connection.executemany(schema.LEASE, leases)

    async def _release(self, deliveries: list[SQLiteDelivery], statement: str) -> None:
        keys = [delivery.key for delivery in deliveries]
        for delivery in deliveries:
            delivery.is_settled = True
            self.forget(delivery)
        if keys:
            try:
                await self.database.write(
                    lambda connection: connection.executemany(statement, keys),
                    timeout=_STOP_TIMEOUT,
                )
            except TransportError as error:
                _log.warning(
                    "Could not requeue events; they are redelivered when their leases end.",
                    events=len(keys),
                    listener=self.subscription.listener_name,
                    reason=str(error),
                )
