"""Reads, counts and adds the dead letters in the file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import DeadLetterCount
from lightbus_sqlite import schema
from lightbus_sqlite.database import Database
from lightbus_sqlite.rows import message_columns, message_from


class SQLiteDeadLetter(DeadLetter):
    """A row of the table ``dead_letter``."""

    def __init__(self, database: Database, row: tuple[Any, ...]) -> None:
        self.id, failure, *columns = row
        self.message = message_from(columns)
        self.failure = msgspec.json.decode(failure, type=Failure)
        self._database = database

    async def discard(self) -> None:
        await self._database.write(
            lambda connection: connection.execute(schema.REMOVE_DEAD_LETTER, (self.id,))
        )


async def read_dead_letters(
    database: Database, service_name: str
) -> AsyncGenerator[SQLiteDeadLetter]:
    """Yield the dead letters of a service, oldest first."""
    last = 0

    def read_page(connection: sqlite3.Connection) -> list[Any]:
        return connection.execute(schema.READ_DEAD_LETTERS, (service_name, last)).fetchall()

    while page := await database.write(read_page):
        for row in page:
            letter = SQLiteDeadLetter(database, row)
            last = letter.id
            yield letter


def add_dead_letter(
    connection: sqlite3.Connection, service_name: str, message: EventMessage, failure: Failure
) -> None:
    """Add a dead letter of a service."""
    row = (service_name, encode_failure(failure), *message_columns(message))
    connection.execute(schema.ADD_DEAD_LETTER, row)


def count_dead_letters(connection: sqlite3.Connection, service_name: str) -> DeadLetterCount:
    """Count the dead letters of a service."""
    rows = connection.execute(schema.COUNT_DEAD_LETTERS, (service_name,))
    by_listener = {(api_name, listener): count for api_name, listener, count in rows}
    return DeadLetterCount(total=sum(by_listener.values()), by_listener=by_listener)


def encode_failure(failure: Failure) -> str:
    """Return the value of the column ``failure``."""
    return msgspec.json.encode(failure).decode()
