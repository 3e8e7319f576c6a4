"""`SQLiteTransport`: the transport contract and its features over one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

from lightbus.exceptions import (
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
    DeadLetterStore,
    FindEvent,
    HealthCheck,
    ListenerQueues,
    QueueStats,
    SharedBroker,
    Tail,
)
from lightbus.transport.kit import OpenStreams, SharedTask, start_generator
from lightbus.transport.records import (
    DeadLetterCount,
    EventLocation,
    ListenerQueue,
    QueueAddress,
    Subscription,
    SubscriptionStats,
)
from lightbus_sqlite import dead_letters, queues
from lightbus_sqlite.connection import File
from lightbus_sqlite.database import Database, NoResponse, Work
from lightbus_sqlite.delivery import PAUSE
from lightbus_sqlite.heartbeat import Heartbeat
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.stream import SQLiteStream
from lightbus_sqlite.tail import read_tail
from lightbus_sqlite.watcher import Watcher

_log = get_logger(__name__)

# A row holds 1,000,000,000 bytes (https://www.sqlite.org/limits.html); the rest is for the names.
MAX_BODY_SIZE = 999_000_000


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
    """Stores events in a file that any number of processes on one machine share."""

    Settings: ClassVar[type[Any]] = SQLiteSettings

    def __init__(self, settings: SQLiteSettings, *, client_name: str) -> None:
        self._settings = settings
        self._file = File(Path(settings.path))
        self._database = Database(self._file)
        self._watcher: Watcher | None = None
        self._streams: OpenStreams[SQLiteStream] = OpenStreams()
        self._closing = SharedTask(self._close)

    async def open(self, *, timeout: float) -> None:
        await self._database.write(lambda _: None, timeout=timeout)

    async def close(self) -> None:
        await self._closing()

    async def _close(self) -> None:
        await self._streams.close()
        if self._watcher is not None:
            await self._watcher.close()
        await self._database.close()

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self._database.write(
            lambda connection: queues.declare(connection, subscription, lease=self._settings.lease),
            timeout=timeout,
        )

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        def add(connection: sqlite3.Connection) -> bool:
            if to is None:
                return queues.add_event(connection, message)
            queues.add_event_to(connection, to, message, attempt)
            return True

        has_listener = await self._write_durably(add, message, timeout=timeout)
        if require_listeners and not has_listener:
            raise SendRefused(message.id, "no listener receives it")

    async def subscribe(self, subscription: Subscription) -> SQLiteStream:
        heartbeat = Heartbeat(self._database, subscription.listener_name)
        listener = await self._declare_until_done(subscription, heartbeat)
        if self._closing.has_started:
            raise TransportClosed(f"SQLite file {self._settings} was closed.")
        if self._watcher is None:
            self._watcher = Watcher(self._file, asyncio.get_running_loop())
        return self._streams.add(
            SQLiteStream(
                self._database,
                self._watcher,
                self._settings,
                subscription,
                listener,
                heartbeat=heartbeat,
            )
        )

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        return await self._database.write(lambda connection: queues.stats(connection, queue))

    async def listener_queues(self, service_name: str) -> list[ListenerQueue]:
        return await self._database.write(
            lambda connection: queues.list_queues(connection, service_name)
        )

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        return await self._database.write(
            lambda connection: queues.remove_queue(connection, queue, discard=discard)
        )

    async def find(self, event_id: str) -> list[EventLocation]:
        return await self._database.write(
            lambda connection: queues.find_event(connection, event_id)
        )

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        return await start_generator(read_tail(self._database, api_name))

    def dead_letters(self, service_name: str) -> AsyncGenerator[dead_letters.SQLiteDeadLetter]:
        return dead_letters.read_dead_letters(self._database, service_name)

    async def count_dead_letters(self, service_name: str) -> DeadLetterCount:
        return await self._database.write(
            lambda connection: dead_letters.count_dead_letters(connection, service_name)
        )

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        def add(connection: sqlite3.Connection) -> None:
            dead_letters.add_dead_letter(connection, service_name, message, failure)

        await self._write_durably(add, message, timeout=timeout)

    async def check_health(self, *, timeout: float) -> list[str]:
        try:
            await self._database.write(lambda _: None, timeout=timeout)
        except TransportError as error:
            return [str(error)]
        return [stream.failure for stream in self._streams if stream.failure is not None]

    async def _declare_until_done(self, subscription: Subscription, heartbeat: Heartbeat) -> int:
        def declare(connection: sqlite3.Connection) -> int:
            listener = queues.declare(connection, subscription, lease=self._settings.lease)
            heartbeat.add(connection, listener)
            return listener

        while True:
            try:
                return await self._database.write(declare)
            except TransportUnavailable as error:
                _log.warning(
                    "Could not declare the listener in the SQLite file; retrying.",
                    listener=subscription.listener_name,
                    reason=str(error),
                )
                await asyncio.sleep(PAUSE)

    async def _write_durably(self, work: Work, message: EventMessage, *, timeout: float) -> Any:
        if len(message.body) > MAX_BODY_SIZE:
            raise SendRefused(
                message.id, f"its {len(message.body):,} bytes are more than SQLite can hold"
            )
        try:
            return await self._database.write(work, timeout=timeout, durable=True)
        except NoResponse as error:
            raise SendOutcomeUnknown(message.id, timeout) from error
        except (OverflowError, UnicodeError) as error:
            raise SendRefused(message.id, f"SQLite cannot store a field of it: {error}") from error
