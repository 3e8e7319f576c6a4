"""`Connection`: opens the file on first use, and keeps no connection open across a fork."""

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

# How long SQLite itself waits for a lock, in seconds. Then the timeouts of operations are checked.
_BUSY_TIMEOUT = 0.25


class File:
    """The file of one transport. A random id that is stored in it tells it from a replacement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._id: str | None = None

    def check_id(self, file_id: str) -> None:
        """Check that `file_id` is the id that was found when the file was first opened.

        Raises:
            TransportRefused: The file was replaced.
        """
        self._id = self._id or file_id
        if file_id != self._id:
            raise self.replaced_error()

    def replaced_error(self) -> TransportRefused:
        """Return the error for a file that is not the one that was opened first."""
        return TransportRefused(
            f"SQLite file {self.path} was deleted or replaced while it was in use; the events in "
            "it are no longer at this path. Restart all processes that use it."
        )

    def inode(self) -> tuple[int, int] | None:
        """Return the device and the inode of the file; None if there is no file."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - faster; called for each transaction
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


class Connection:
    """One connection, for one thread.

    Attributes:
        lock: Hold it around every use. A thread that forks holds it, too.
    """

    def __init__(self, file: File) -> None:
        self.lock = threading.RLock()
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        _all_connections.add(self)

    def connect(self) -> sqlite3.Connection:
        """Return the connection; open it if it is not open.

        Raises:
            sqlite3.Error: The file cannot be opened.
            OSError: The directory of the file cannot be created.
            TransportRefused: The file belongs to another program, or was replaced.
        """
        if self._connection is None:
            connection = _connect(self._file.path)
            try:
                (file_id,) = connection.execute(schema.READ_FILE_ID).fetchone()
                self._file.check_id(file_id)
                self._inode = self._file.inode()
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def check_inode(self) -> None:
        """Check that the open file is still the one at its path.

        Raises:
            TransportRefused: The file was deleted or replaced.
        """
        if self._connection is not None and self._file.inode() != self._inode:
            raise self._file.replaced_error()

    def run_thread(self, work: Callable[[], None], *, name: str) -> Future[None]:
        """Run `work`, which uses the connection, in a thread; then close the connection.

        Returns:
            A future that is done once the connection is closed.
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
        """Close the connection. The next use opens it again."""
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


# Closing a file releases all locks that the process has on it. So no other thread may open the file
# between its creation and the close. https://www.sqlite.org/howtocorrupt.html
_creation_lock = threading.Lock()


def _create(path: Path) -> None:
    """Create an empty file that only its owner may read, unless the file exists.

    SQLite gives the files that it creates beside it the same mode.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _creation_lock, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if path.exists() and not path.is_file():
        raise TransportRefused(
            f"SQLite file {path} cannot be used: it is not a regular file. Set `path` to another "
            "path."
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if _schema_version(connection, path) == schema.VERSION:
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    with _rollback_on_error(connection):
        # Read again: another process may have created or upgraded the tables meanwhile.
        version = _schema_version(connection, path)
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


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of the file; 0 if it has no tables.

    Raises:
        TransportRefused: The tables are those of a later version, or of another program.
    """
    application_id, version, tables = connection.execute(schema.READ_FORMAT).fetchone()
    if application_id == schema.APPLICATION_ID:
        if version > schema.VERSION:
            raise TransportRefused(
                f"SQLite file {path} was created by a later version of Lightbus (schema version "
                f"{version}; this version supports {schema.VERSION}). Upgrade Lightbus, or set "
                "`path` to another file."
            )
        return int(version)
    if application_id != 0 or tables != 0:
        raise TransportRefused(
            f"SQLite file {path} belongs to another program. Set `path` to another file."
        )
    return 0


@contextlib.contextmanager
def _rollback_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # SQLite itself rolls back on some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    # `executescript` would commit the transaction first.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


# A fork copies SQLite's record of the locks that a process holds, but not the locks. So no
# connection may be open during a fork. https://www.sqlite.org/howtocorrupt.html
_all_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
# Reentrant, because a signal handler that interrupts a fork may fork, too.
_fork_lock = threading.RLock()
# The connections that each fork in progress has locked
_locked_by_forks: list[list[Connection]] = []


def _before_fork() -> None:
    # A signal handler that fires an event would wait for a lock that this thread holds.
    forbid_waiting()
    _fork_lock.acquire()  # another thread may fork, too
    _locked_by_forks.append([])
    for connection in list(_all_connections):
        connection.lock.acquire()
        _locked_by_forks[-1].append(connection)
        connection.close()


def _after_fork() -> None:
    for connection in _locked_by_forks.pop():
        connection.lock.release()
    _fork_lock.release()
    permit_waiting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
