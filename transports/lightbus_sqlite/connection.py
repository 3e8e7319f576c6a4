"""`Connection`: a connection to the file, opened when it is needed, and never across a fork."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from lightbus.concurrency.busy_threads import forbid_waiting, permit_waiting, working_for_the_bus
from lightbus.exceptions import TransportRefused
from lightbus_sqlite import schema

# How long SQLite itself waits for a lock, in seconds, before the waiting operations are looked at.
_BUSY_TIMEOUT = 0.25


class File:
    """The file of one transport. It is known again by an id that is stored in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._id: str | None = None

    def recognize(self, file_id: str) -> None:
        """Take `file_id` for the file's, if it is the first one.

        Raises:
            TransportRefused: There was another one.
        """
        self._id = self._id or file_id
        if file_id != self._id:
            raise self.replaced()

    def replaced(self) -> TransportRefused:
        """Return the error that says that this is no longer the file that it was."""
        return TransportRefused(
            f"SQLite file {self.path} was deleted or replaced while it was in use, and the events "
            "in it are gone from here. Restart all that uses it."
        )

    def place(self) -> tuple[int, int] | None:
        """Return what tells the file that is there now from others; None where there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - for each transaction, and faster
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


class Connection:
    """One connection, used by one thread.

    Attributes:
        lock: Held around every use, and by a thread that forks.
    """

    def __init__(self, file: File) -> None:
        self.lock = threading.RLock()
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None
        _all_connections.add(self)

    def opened(self) -> sqlite3.Connection:
        """Return the connection, opened where it is not.

        Raises:
            sqlite3.Error: It cannot be opened.
            OSError: Its folder cannot be made.
            TransportRefused: The file is not ours, or no longer the one that it was.
        """
        if self._connection is None:
            connection = _connect(self._file.path)
            try:
                (file_id,) = connection.execute(schema.FILE_ID).fetchone()
                self._file.recognize(file_id)
                self._place = self._file.place()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def check_place(self) -> None:
        """Make sure that what is open is what others find.

        Raises:
            TransportRefused: The file was deleted or replaced.
        """
        if self._connection is not None and self._file.place() != self._place:
            raise self._file.replaced()

    def run_thread(self, work: Callable[[], None], *, name: str) -> Future[None]:
        """Start the thread that uses the connection and does `work`; return what is done when it
        has ended and the connection is closed.
        """
        ended: Future[None] = Future()

        def run() -> None:
            try:
                with working_for_the_bus():
                    work()
            finally:
                with self.lock:
                    self.close()
                ended.set_result(None)

        threading.Thread(target=run, name=name, daemon=True).start()
        return ended

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    _create(path)
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


# Closing a file ends all locks that its process has on it. So no other thread may open the file
# between its creation and the close. https://www.sqlite.org/howtocorrupt.html
_creating = threading.Lock()


def _create(path: Path) -> None:
    """Make an empty file that only its user may read, where there is none.

    SQLite gives the files beside it the same mode.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _creating, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if path.exists() and not path.is_file():
        raise TransportRefused(
            f"SQLite file {path} cannot be used: it is not a regular file. Set `path` to another "
            "file."
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if _version_of(connection, path) == schema.VERSION:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    with _rolled_back_on_error(connection):
        # Asked again, for another process may have been faster.
        version = _version_of(connection, path)
        if version == 0:
            _execute_all(connection, schema.CREATE)
            connection.execute(schema.SET_FILE_ID, (secrets.token_hex(16),))
        else:
            for older in range(version, schema.VERSION):
                _execute_all(connection, schema.UPGRADES[older])
        connection.execute("COMMIT")


def _execute_all(connection: sqlite3.Connection, script: str) -> None:
    for statement in _statements(script):
        connection.execute(statement)


def _version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of our tables in the file; 0 where it has no tables at all.

    Raises:
        TransportRefused: It has those of a later version, or of another program.
    """
    application_id, version, tables = connection.execute(schema.IDENTIFY).fetchone()
    if application_id == schema.APPLICATION_ID:
        if version > schema.VERSION:
            raise TransportRefused(
                f"SQLite file {path} was made by a later version of Lightbus (its format is "
                f"{version}, this one knows {schema.VERSION}). Upgrade Lightbus, or name another."
            )
        return int(version)
    if application_id != 0 or tables != 0:
        raise TransportRefused(f"SQLite file {path} belongs to another program. Name another file.")
    return 0


@contextlib.contextmanager
def _rolled_back_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Of some errors, SQLite rolls back by itself.
        if connection.in_transaction:
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
_all_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
# A signal handler that interrupts a fork may fork, too.
_forking = threading.RLock()
_held: list[list[Connection]] = []


def _before_fork() -> None:
    # A signal handler that fires would wait for a lock that this thread holds.
    forbid_waiting()
    _forking.acquire()  # another thread may fork, too
    _held.append([])
    for connection in list(_all_connections):
        connection.lock.acquire()
        _held[-1].append(connection)
        connection.close()


def _after_fork() -> None:
    for connection in _held.pop():
        connection.lock.release()
    _forking.release()
    permit_waiting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
