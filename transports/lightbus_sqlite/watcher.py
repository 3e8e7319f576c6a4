"""`Watcher`: wakes streams when the file has events for them, and uses almost no CPU."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import attrs

from lightbus_sqlite import schema
from lightbus_sqlite.connection import Connection, File

# How often the file is polled while a stream waits, in seconds. A poll is one system call.
_POLL_PERIOD = 0.02

# How often, in seconds, the thread checks whether the file was replaced or the event loop closed
_CHECK_PERIOD = 1.0

# How long to wait after an error, in seconds
_ERROR_PAUSE = 0.5


@attrs.frozen(eq=False)
class _Waiter:
    listener: int
    wake: Callable[[], None]


class Watcher:
    """Watches the file in a thread, for the streams of one event loop.

    SQLite counts the commits of other connections (``PRAGMA data_version``). The tables are queried
    only when that number has changed, or when a delay or a lease has ended.
    """

    def __init__(self, file: File, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = Connection(file)
        self._loop = loop
        self._seen_version: tuple[sqlite3.Connection, int] | None = None
        self._next_query_at = 0.0
        self._next_check_at = 0.0
        self._waiters: set[_Waiter] = set()
        self._changed = threading.Condition()
        self._is_closed = False
        self._ended: Future[None] | None = None

    @contextlib.contextmanager
    def watch(self, listener: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` once, on the event loop, when the listener has an event, or when reading the
        file fails.
        """
        if self._ended is None:
            self._ended = self._connection.run_thread(self._run, name="lightbus-watch")
        waiter = _Waiter(listener, wake)
        with self._changed:
            self._waiters.add(waiter)
            self._next_query_at = 0.0
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiters.discard(waiter)

    async def close(self) -> None:
        """Stop the thread and close the file. Closing again does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._ended is not None:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _run(self) -> None:
        while self._is_watching():
            try:
                while not self._has_changed():
                    time.sleep(_POLL_PERIOD)
                self._query()
            except Exception:
                # The streams that are woken meet the same error and report it.
                self._wake(set(self._waiters))
                time.sleep(_ERROR_PAUSE)

    def _is_watching(self) -> bool:
        with self._changed:
            while not self._is_stopping and not self._waiters:
                self._changed.wait(_CHECK_PERIOD)
            return not self._is_stopping

    @property
    def _is_stopping(self) -> bool:
        return self._is_closed or self._loop.is_closed()

    def _has_changed(self) -> bool:
        # Kept short, because it runs at every poll.
        now = time.time()
        with self._connection.lock:
            connection = self._connection.connect()
            if not 0 <= self._next_check_at - now <= _CHECK_PERIOD:
                self._connection.check_inode()
                self._next_check_at = now + _CHECK_PERIOD
            version = _data_version(connection)
        return version != self._seen_version or now >= self._next_query_at or self._is_stopping

    def _query(self) -> None:
        with self._changed:
            self._next_query_at = math.inf
            waiters = set(self._waiters)
        ready, next_query, now = set(), math.inf, time.time()
        with self._connection.lock:
            connection = self._connection.connect()
            # Read before the tables, so that a commit in between leads to another query.
            self._seen_version = _data_version(connection)
            for waiter in waiters:
                (next_at,) = connection.execute(
                    schema.NEXT_AVAILABLE_AT, (waiter.listener,)
                ).fetchone()
                if next_at is not None and next_at <= now:
                    ready.add(waiter)
                elif next_at is not None:
                    next_query = min(next_query, next_at)
        with self._changed:
            # A stream that started to wait meanwhile has set it to 0.
            self._next_query_at = min(self._next_query_at, next_query)
        self._wake(ready)

    def _wake(self, ready: set[_Waiter]) -> None:
        with self._changed:
            self._waiters -= ready
        for waiter in ready:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(waiter.wake)


def _data_version(connection: sqlite3.Connection) -> tuple[sqlite3.Connection, int]:
    # The numbers of different connections cannot be compared.
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return connection, version
