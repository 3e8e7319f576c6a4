"""`SQLiteTransport`: the transport contract over one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec

from lightbus.exceptions import SendOutcomeUnknown, TransportUnavailable
from lightbus.failure import Failure
from lightbus.message import EventMessage
from lightbus.transport import DeadLetter, EventTransport, Subscription
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.settings import SQLiteSettings
from lightbus_sqlite.stream import OPERATION_TIMEOUT, SQLiteStream, message_of
from lightbus_sqlite.watcher import Watcher


class SQLiteTransport(EventTransport):
    """Keeps events in a file, which any number of processes on one machine share."""

    Settings: ClassVar[type[Any]] = SQLiteSettings

    def __init__(self, settings: SQLiteSettings, *, client_name: str) -> None:
        self._settings = settings
        self._database = Database(settings.file)
        self._watcher: Watcher | None = None
        self._streams: list[SQLiteStream] = []

    async def open(self, *, timeout: float) -> None:
        await self._write(lambda _: None, timeout=timeout)

    async def send(self, message: EventMessage, *, timeout: float) -> None:
        def add(connection: sqlite3.Connection) -> None:
            name = (message.api_name, message.event_name)
            if connection.execute(schema.IS_WANTED, name).fetchone() is None:
                return
            columns = (
                message.id,
                *name,
                message.body,
                message.version,
                message.fired_at.isoformat(),
                message.service_name,
            )
            event = connection.execute(schema.ADD_EVENT, columns).lastrowid
            connection.execute(schema.ADD_DELIVERIES, (event, *name))

        try:
            await self._database.write(add, timeout=timeout, must_last=True)
        except TimeoutError as error:
            raise SendOutcomeUnknown(message.id, timeout) from error

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        await self._declare(subscription, timeout=timeout)

    async def subscribe(self, subscription: Subscription) -> SQLiteStream:
        listener = await self._declare(subscription, timeout=OPERATION_TIMEOUT)
        if self._watcher is None:
            self._watcher = Watcher(self._settings.file, asyncio.get_running_loop())
        stream = SQLiteStream(self._database, self._watcher, self._settings, subscription, listener)
        self._streams = [*(open_ for open_ in self._streams if not open_.is_closed), stream]
        return stream

    async def dead_letters(self, service_name: str) -> AsyncIterator[DeadLetter]:
        last = 0

        def next_page(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(schema.DEAD_LETTERS, (service_name, last)).fetchall()

        while page := await self._write(next_page, timeout=OPERATION_TIMEOUT):
            for _, *columns, failure in page:
                yield DeadLetter(
                    message=message_of(columns), failure=msgspec.json.decode(failure, type=Failure)
                )
            last = page[-1][0]

    async def close(self) -> None:
        streams, self._streams = self._streams, []
        await asyncio.gather(*(stream.aclose() for stream in streams))
        if self._watcher is not None:
            self._watcher.close()
        await self._database.close()

    async def _declare(self, subscription: Subscription, *, timeout: float) -> int:
        key = (subscription.service_name, subscription.listener_name, subscription.api_name)

        def add(connection: sqlite3.Connection) -> int:
            connection.execute(schema.ADD_LISTENER, key)
            listener: int = connection.execute(schema.FIND_LISTENER, key).fetchone()[0]
            wanted = [(subscription.api_name, name, listener) for name in subscription.events]
            connection.executemany(schema.ADD_WANTED, wanted)
            return listener

        listener: int = await self._write(add, timeout=timeout)
        return listener

    async def _write(self, work: Any, *, timeout: float) -> Any:
        try:
            return await self._database.write(work, timeout=timeout)
        except TimeoutError as error:
            raise TransportUnavailable(
                f"SQLite file {self._settings.file} did not answer within {timeout:.3g} s."
            ) from error
