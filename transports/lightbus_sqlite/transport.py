"""`SQLiteTransport`: the transport contract over one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from lightbus.exceptions import (
    NotDeclared,
    QueueInUse,
    SendOutcomeUnknown,
    SendRefused,
    TransportClosed,
    TransportError,
    TransportUnavailable,
)
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    DeadLetter,
    DeadLetterStore,
    FindEvent,
    HealthCheck,
    ListenerQueues,
    QueueStats,
    SharedBroker,
    Tail,
)
from lightbus.transport.kit import SharedTask, start_generator
from lightbus.transport.records import (
    DeadLetterCount,
    EventLocation,
    ListenerQueue,
    LocationState,
    QueueAddress,
    Subscription,
    SubscriptionStats,
)
from lightbus_sqlite import schema
from lightbus_sqlite.connection import File
from lightbus_sqlite.database import Database, Work
from lightbus_sqlite.delivery import OPERATION_TIMEOUT, PAUSE, message_of
from lightbus_sqlite.presence import Presence
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.stream import SQLiteStream
from lightbus_sqlite.tail import TAIL_PERIOD, TailedEvents, show
from lightbus_sqlite.watcher import Watcher

_log = get_logger(__name__)

# A row holds 1,000,000,000 bytes (https://www.sqlite.org/limits.html); the rest is for the names.
_MOST_BYTES = 999_000_000

# A clock that was set back by more than so many seconds was wrong before.
_LARGEST_CORRECTION = 3 * 3600.0


class SQLiteTransport(
    EventTransport,
    SharedBroker,
    DeadLetterStore,
    FindEvent,
    HealthCheck,
    ListenerQueues,
    QueueStats,
    Tail,
):
    """Keeps events in a file, which any number of processes on one machine share."""

    Settings: ClassVar[type[Any]] = SQLiteSettings

    def __init__(self, settings: SQLiteSettings, *, client_name: str) -> None:
        self._settings = settings
        self._file = File(Path(settings.path))
        self._database = Database(self._file)
        self._closing = SharedTask(self._close)
        self._watcher: Watcher | None = None
        self._streams: list[SQLiteStream] = []

    async def open(self, *, timeout: float) -> None:
        await self._write(lambda _: None, timeout=timeout)

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        if to is not None:
            await self._send_to(to, message, attempt=attempt, timeout=timeout)
            return
        name = (message.api_name, message.event_name)

        def add(connection: sqlite3.Connection) -> bool:
            is_wanted, is_tailed = connection.execute(
                schema.WHO_WANTS, (*name, message.api_name)
            ).fetchone()
            if is_tailed:
                show(connection, message.api_name, _columns_of(message))
            if not is_wanted:
                return False
            event = connection.execute(schema.ADD_EVENT, _columns_of(message)).lastrowid
            connection.execute(schema.ADD_DELIVERIES, (event, *name))
            return True

        is_wanted = await self._send(add, message, timeout=timeout)
        if require_listeners and not is_wanted:
            raise SendRefused(message.id, "no listener wants it")

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self._declare(subscription, timeout=timeout)

    async def subscribe(self, subscription: Subscription) -> SQLiteStream:
        presence = Presence(self._database)
        listener = await self._declared(subscription, presence)
        if self._closing.has_started:
            raise TransportClosed(f"SQLite file {self._settings} was closed.")
        if self._watcher is None:
            self._watcher = Watcher(self._file, asyncio.get_running_loop())
        stream = SQLiteStream(
            self._database, self._watcher, self._settings, subscription, listener, presence=presence
        )
        self._streams = [*(open_ for open_ in self._streams if not open_.is_closed), stream]
        return stream

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        def count(connection: sqlite3.Connection) -> Any:
            which = {"now": time.time(), "listener": _listener(connection, _key_of(queue))}
            return connection.execute(schema.STATS, which).fetchone()

        waiting, delayed, in_flight = await self._write(count, timeout=OPERATION_TIMEOUT)
        return SubscriptionStats(waiting=waiting, delayed=delayed, in_flight=in_flight)

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        tail = TailedEvents(api_name)
        try:
            await self._write(tail.begin, timeout=OPERATION_TIMEOUT)
        except BaseException:
            await self._end(tail)
            raise
        return await start_generator(self._tailed(tail))

    async def _tailed(self, tail: TailedEvents) -> AsyncGenerator[EventMessage | None]:
        try:
            yield None
            while True:
                messages = await self._write(tail.take, timeout=OPERATION_TIMEOUT)
                for message in messages:
                    yield message
                if not messages:
                    await asyncio.sleep(TAIL_PERIOD)
        finally:
            await self._end(tail)

    async def _end(self, tail: TailedEvents) -> None:
        with contextlib.suppress(TransportError):  # it expires
            await self._write(tail.end, timeout=OPERATION_TIMEOUT)

    async def listener_queues(self, service_name: str) -> list[ListenerQueue]:
        rows = await self._write(
            lambda connection: connection.execute(
                schema.LISTENER_QUEUES, (service_name,)
            ).fetchall(),
            timeout=OPERATION_TIMEOUT,
        )
        return [
            ListenerQueue(listener_name=name, api_name=api, events=events)
            for name, api, events in rows
        ]

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        owner = f"listener {queue.listener_name!r} on {queue.api_name}"

        def remove(connection: sqlite3.Connection) -> int:
            listener = _listener(connection, _key_of(queue))
            which = {"listener": listener, "now": time.time()}
            if connection.execute(schema.IS_IN_USE, which).fetchone()[0]:
                raise QueueInUse(
                    owner,
                    "a worker uses it. Stop the worker first; if it was killed, wait a minute",
                )
            (events,) = connection.execute(schema.COUNT_DELIVERIES, (listener,)).fetchone()
            if events and not discard:
                raise QueueInUse(owner, events=events)
            for statement in schema.REMOVE_LISTENER:
                connection.execute(statement, (listener,))
            return int(events)

        removed: int = await self._write(remove, timeout=OPERATION_TIMEOUT)
        return removed

    async def find(self, event_id: str) -> list[EventLocation]:
        rows = await self._write(
            lambda connection: connection.execute(schema.FIND, (event_id, event_id)).fetchall(),
            timeout=OPERATION_TIMEOUT,
        )
        now = time.time()
        return [_place_of(row, now) for row in rows]

    async def dead_letters(self, service_name: str) -> AsyncGenerator[SQLiteDeadLetter]:
        last = 0

        def next_page(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(schema.DEAD_LETTERS, (service_name, last)).fetchall()

        while page := await self._write(next_page, timeout=OPERATION_TIMEOUT):
            for row in page:
                yield SQLiteDeadLetter(self, row)
            last = page[-1][0]

    async def count_dead_letters(self, service_name: str) -> DeadLetterCount:
        rows = await self._write(
            lambda connection: connection.execute(
                schema.COUNT_DEAD_LETTERS, (service_name,)
            ).fetchall(),
            timeout=OPERATION_TIMEOUT,
        )
        by_listener = {(api_name, listener): count for api_name, listener, count in rows}
        return DeadLetterCount(total=sum(by_listener.values()), by_listener=by_listener)

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        row = (service_name, msgspec.json.encode(failure).decode(), *_columns_of(message))
        await self._send(
            lambda connection: connection.execute(schema.BURY, row), message, timeout=timeout
        )

    async def discard(self, dead_letter: int) -> None:
        """Remove the dead letter of that number."""
        await self._write(
            lambda connection: connection.execute(schema.DISCARD, (dead_letter,)),
            timeout=OPERATION_TIMEOUT,
        )

    async def check_health(self, *, timeout: float) -> list[str]:
        try:
            await self._write(lambda _: None, timeout=timeout)
        except TransportError as error:
            return [str(error)]
        return [stream.problem for stream in self._streams if stream.problem is not None]

    async def close(self) -> None:
        await self._closing()

    async def _close(self) -> None:
        await asyncio.gather(*(stream.aclose() for stream in self._streams))
        if self._watcher is not None:
            await self._watcher.close()
        await self._database.close()

    async def _declared(self, subscription: Subscription, presence: Presence) -> int:
        while True:
            try:
                return await self._declare(subscription, presence, timeout=OPERATION_TIMEOUT)
            except TransportUnavailable as error:
                _log.warning("A listener cannot be declared; trying again.", reason=str(error))
                await asyncio.sleep(PAUSE)

    async def _declare(
        self, subscription: Subscription, presence: Presence | None = None, *, timeout: float
    ) -> int:
        def add(connection: sqlite3.Connection) -> int:
            connection.execute(schema.ADD_LISTENER, _key_of(subscription))
            listener = _listener(connection, _key_of(subscription))
            wanted = [(subscription.api_name, name, listener) for name in subscription.events]
            connection.executemany(schema.ADD_WANTED, wanted)
            # No lease and no delay is longer. What has one was given it by a clock that was ahead.
            latest = time.time() + max({self._settings.lease, *subscription.delays})
            beyond = latest + _LARGEST_CORRECTION
            times = {"at": latest, "listener": listener, "beyond": beyond}
            connection.execute(schema.BRING_FORWARD, times)
            if presence is not None:
                presence.begin(connection, listener)
            return listener

        listener: int = await self._write(add, timeout=timeout)
        return listener

    async def _send_to(
        self, queue: QueueAddress, message: EventMessage, *, attempt: int, timeout: float
    ) -> None:
        def add(connection: sqlite3.Connection) -> None:
            listener = _listener(connection, _key_of(queue))
            event = connection.execute(schema.ADD_EVENT, _columns_of(message)).lastrowid
            connection.execute(schema.ADD_DELIVERY, (listener, event, attempt))

        await self._send(add, message, timeout=timeout)

    async def _send(self, work: Work, message: EventMessage, *, timeout: float) -> Any:
        if len(message.body) > _MOST_BYTES:
            raise SendRefused(
                message.id, f"its {len(message.body):,} bytes are more than SQLite can hold"
            )
        try:
            return await self._database.write(work, timeout=timeout, must_last=True)
        except TimeoutError as error:
            raise SendOutcomeUnknown(message.id, timeout) from error
        except (OverflowError, UnicodeError) as error:
            raise SendRefused(message.id, f"SQLite cannot hold a field of it: {error}") from error

    async def _write(self, work: Work, *, timeout: float) -> Any:
        try:
            return await self._database.write(work, timeout=timeout)
        except TimeoutError as error:
            raise TransportUnavailable(
                f"SQLite file {self._settings} did not answer within {timeout:.3g} s."
            ) from error


class SQLiteDeadLetter(DeadLetter):
    """One row of the dead letters."""

    def __init__(self, transport: SQLiteTransport, row: tuple[Any, ...]) -> None:
        self._id, failure, *columns = row
        self.message = message_of(columns)
        self.failure = msgspec.json.decode(failure, type=Failure)
        self._transport = transport

    async def discard(self) -> None:
        await self._transport.discard(self._id)


def _place_of(row: tuple[Any, ...], now: float) -> EventLocation:
    service, listener, attempt, available_at, is_owned, *columns = row
    state = LocationState.WAITING
    if available_at > now:
        state = LocationState.IN_FLIGHT if is_owned else LocationState.DELAYED
    return EventLocation(
        message=message_of(columns),
        service_name=service,
        listener_name=listener,
        state=state,
        attempt=attempt,
        until=datetime.fromtimestamp(available_at, UTC) if available_at > now else None,
    )


def _key_of(queue: QueueAddress) -> tuple[str, str, str]:
    return queue.service_name, queue.listener_name, queue.api_name


def _listener(connection: sqlite3.Connection, key: tuple[str, str, str]) -> int:
    found = connection.execute(schema.FIND_LISTENER, key).fetchone()
    if found is None:
        service_name, listener_name, api_name = key
        raise NotDeclared(
            f"Listener {listener_name!r} of service {service_name!r} has no queue for events of "
            f"{api_name} in the SQLite file: declare it first."
        )
    return int(found[0])


def _columns_of(message: EventMessage) -> tuple[Any, ...]:
    return (
        message.id,
        message.api_name,
        message.event_name,
        message.body,
        message.version,
        message.fired_at.isoformat(),
        message.service_name,
        message.traceparent,
    )
