"""`Database`: one file, written by one thread of this process, many operations to a commit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from lightbus.exceptions import TransportClosed, TransportRefused, TransportUnavailable
from lightbus_sqlite import schema
from lightbus_sqlite.errors import is_busy, is_full, translated

Work = Callable[[sqlite3.Connection], Any]

_NAME = "lightbus-sqlite"

# How much longer than its time limit an operation is waited for, in seconds: after that the disk
# itself must be stuck.
_GRACE = 2.0

# How long SQLite itself waits for a lock, in seconds, before the waiting operations are looked at.
_BUSY_TIMEOUT = 0.25

# More operations than this are committed in turns, so that other processes get theirs.
_MOST_IN_A_COMMIT = 500


@attrs.define(eq=False)
class _Operation:
    work: Work
    must_last: bool
    deadline: float
    timeout: float
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]

    def succeed(self, value: Any) -> None:
        self._settle(lambda: self.result.set_result(value))

    def fail(self, error: Exception) -> None:
        self._settle(lambda: self.result.set_exception(error))

    def _settle(self, settle: Callable[[], None]) -> None:
        def unless_given_up() -> None:
            if not self.result.done():
                settle()

        with contextlib.suppress(RuntimeError):  # the loop ended without waiting for it
            self.loop.call_soon_threadsafe(unless_given_up)


class Database:
    """The file of one transport.

    Operations that come in while a commit is under way share the next one. What must last is
    written through to the disk before it is confirmed; the rest survives a crash of any process,
    and a power failure at worst undoes it, so that events come again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        # Held around every use of the connection, and by a thread that forks.
        self.lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._is_closed = False
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._ended: concurrent.futures.Future[None] | None = None
        close_before_fork(self)

    async def write(self, work: Work, *, timeout: float, must_last: bool = False) -> Any:
        """Return what `work` returns, once the transaction that it ran in is committed.

        Raises:
            TransportUnavailable: The file was locked for `timeout` seconds, or the disk is full.
            TransportRefused: The file can not be used.
            TransportClosed: The database was closed.
            TimeoutError: The disk did not answer in time; what was to be written may be.
        """
        if self._is_closed:
            raise TransportClosed(f"SQLite file {self.file} was closed.")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        deadline = time.monotonic() + timeout
        self._operations.put(_Operation(work, must_last, deadline, timeout, loop, result))
        if self._ended is None:
            self._ended = concurrent.futures.Future()
            self._ended.set_running_or_notify_cancel()
            threading.Thread(target=self._run, args=(self._ended,), name=_NAME, daemon=True).start()
        async with asyncio.timeout(timeout + _GRACE):
            return await result

    async def close(self) -> None:
        """Commit what was given to `write`, and close the file. Closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._operations.put(None)
        if self._ended is not None:
            await asyncio.wrap_future(self._ended)

    def disconnect(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, ended: concurrent.futures.Future[None]) -> None:
        try:
            self._commit_until_closed()
        finally:
            with self.lock:
                self.disconnect()
            ended.set_result(None)

    def _commit_until_closed(self) -> None:
        while (first := self._operations.get()) is not None:
            is_last = False
            batch = [first]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _MOST_IN_A_COMMIT:
                    following = self._operations.get_nowait()
                    if following is None:
                        is_last = True
                        break
                    batch.append(following)
            self._commit(batch)
            if is_last:
                break

    def _commit(self, batch: list[_Operation]) -> None:
        has_made_room = False
        while batch:
            try:
                with self.lock:
                    results = self._run_in_transaction(batch)
            except (sqlite3.Error, OSError, TransportRefused) as error:
                if is_busy(error):
                    batch = self._without_the_late(batch)
                elif is_full(error) and not has_made_room:
                    self._make_room()
                    has_made_room = True
                else:
                    self._fail(batch, translated(error, self.file))
                    return
            except Exception as error:
                self._fail(batch, error)
                return
            else:
                for operation, value in zip(batch, results, strict=True):
                    operation.succeed(value)
                return

    def _make_room(self) -> None:
        # What is in the log can be written over once it is in the database, too: so on a full disk
        # events can still be settled, which makes room for others.
        with contextlib.suppress(sqlite3.Error), self.lock:
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _fail(self, batch: list[_Operation], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].fail(error)
        else:
            # The fault may be with one of them, such as an event that is too large.
            for operation in batch:
                self._commit([operation])

    def _run_in_transaction(self, batch: list[_Operation]) -> list[Any]:
        connection = self._connected()
        level = "FULL" if any(operation.must_last for operation in batch) else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation.work(connection) for operation in batch]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
                connection.execute("ROLLBACK")
            raise
        return results

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self.file)
            self._identity = _identity_of(self.file)
        elif _identity_of(self.file) != self._identity:
            raise TransportRefused(
                f"SQLite file {self.file} was deleted or replaced while it was in use, and the "
                "events in it are gone from here. Restart all that uses it."
            )
        return self._connection

    def _without_the_late(self, batch: list[_Operation]) -> list[_Operation]:
        now = time.monotonic()
        for operation in batch:
            if operation.deadline <= now:
                operation.fail(
                    TransportUnavailable(
                        f"SQLite file {self.file} was locked by another process for "
                        f"{operation.timeout:.3g} s; nothing was written to it."
                    )
                )
        return [operation for operation in batch if operation.deadline > now]


def connect(file: Path) -> sqlite3.Connection:
    """Open the file, making it and its folder where they do not exist.

    Raises:
        sqlite3.Error: It can not be opened.
        OSError: Its folder can not be made.
        TransportRefused: It belongs to another program, or to a later version of this one.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(
        file, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def _identity_of(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    if _is_ours(connection, file):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    with _rolled_back_on_error(connection):
        if not _is_ours(connection, file):  # no other process was faster
            for statement in _statements(schema.CREATE):
                connection.execute(statement)
        connection.execute("COMMIT")


def _is_ours(connection: sqlite3.Connection, file: Path) -> bool:
    """Return whether the file has our tables; False where it has none at all.

    Raises:
        TransportRefused: It has others.
    """
    application_id, version, tables = connection.execute(schema.IDENTIFY).fetchone()
    if application_id == schema.APPLICATION_ID:
        if version > schema.VERSION:
            raise TransportRefused(
                f"SQLite file {file} was made by a later version of Lightbus (its format is "
                f"{version}, this one knows {schema.VERSION}). Upgrade Lightbus, or name another."
            )
        return True
    if application_id != 0 or tables != 0:
        raise TransportRefused(f"SQLite file {file} belongs to another program. Name another file.")
    return False


@contextlib.contextmanager
def _rolled_back_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    # `executescript` would commit before it begins.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


# SQLite's own record of which locks a process holds is copied by a fork, though the locks are not.
# So no connection may be open while the process forks. https://www.sqlite.org/howtocorrupt.html
_open_databases: weakref.WeakSet[Any] = weakref.WeakSet()
_held: list[Any] = []


def close_before_fork(database: Any) -> None:
    """Have the connection of `database`, which has a `lock` and `disconnect`, closed at a fork."""
    _open_databases.add(database)


def _before_fork() -> None:
    for database in list(_open_databases):
        database.lock.acquire()
        database.disconnect()
        _held.append(database)


def _after_fork() -> None:
    while _held:
        _held.pop().lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
