"""`Watcher`: notices, at next to no cost, when there is something for a listener in the file."""

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

# How often the file is looked at while a listener waits, in seconds. A look is one system call.
_PERIOD = 0.02

# How often, in seconds, the thread checks that the file is still where it was, and that the event
# loop was not closed.
_CHECK_PERIOD = 1.0

# How long to wait after an error, in seconds.
_PAUSE = 0.5


@attrs.frozen(eq=False)
class _Waiting:
    listener: int
    wake: Callable[[], None]


class Watcher:
    """Watches the file for the listeners of one event loop, in a thread.

    SQLite counts the commits of other connections (``PRAGMA data_version``): only when that number
    has changed, or a delay is over, are the tables looked at.
    """

    def __init__(self, file: File, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = Connection(file)
        self._loop = loop
        self._seen: tuple[sqlite3.Connection, int] | None = None
        self._next_look = 0.0
        self._next_check = 0.0
        self._waiting: set[_Waiting] = set()
        self._changed = threading.Condition()
        self._is_closed = False
        self._ended: Future[None] | None = None

    @contextlib.contextmanager
    def watching(self, listener: int, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` once, on the loop, when there is an event for a listener, or an error that
        whoever asks for events will meet.
        """
        if self._ended is None:
            self._ended = self._connection.run_thread(self._run, name="lightbus-watch")
        waiting = _Waiting(listener, wake)
        with self._changed:
            self._waiting.add(waiting)
            self._next_look = 0.0
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.discard(waiting)

    async def close(self) -> None:
        """End the thread and close the file. Closing again does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._ended is not None:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _run(self) -> None:
        while self._is_watching():
            try:
                while not self._has_news():
                    time.sleep(_PERIOD)
                self._look()
            except Exception:
                # Those who wait meet the same error, and tell of it.
                self._wake(set(self._waiting))
                time.sleep(_PAUSE)

    def _is_watching(self) -> bool:
        with self._changed:
            while not self._is_over and not self._waiting:
                self._changed.wait(_CHECK_PERIOD)
            return not self._is_over

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._loop.is_closed()

    def _has_news(self) -> bool:
        # Run for as long as all is quiet, so it is kept short.
        now = time.time()
        with self._connection.lock:
            connection = self._connection.opened()
            if not 0 <= self._next_check - now <= _CHECK_PERIOD:
                self._connection.check_place()
                self._next_check = now + _CHECK_PERIOD
            seen = _version_of(connection)
        return seen != self._seen or now >= self._next_look or self._is_over

    def _look(self) -> None:
        with self._changed:
            self._next_look = math.inf
            waiting = set(self._waiting)
        ready, next_look, now = set(), math.inf, time.time()
        with self._connection.lock:
            connection = self._connection.opened()
            # Read before the tables: what is committed in between is looked at twice, never missed.
            self._seen = _version_of(connection)
            for one in waiting:
                (next_at,) = connection.execute(
                    schema.NEXT_AVAILABLE_AT, (one.listener,)
                ).fetchone()
                if next_at is not None and next_at <= now:
                    ready.add(one)
                elif next_at is not None:
                    next_look = min(next_look, next_at)
        with self._changed:
            # One that came meanwhile has set it to now.
            self._next_look = min(self._next_look, next_look)
        self._wake(ready)

    def _wake(self, ready: set[_Waiting]) -> None:
        with self._changed:
            self._waiting -= ready
        for one in ready:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(one.wake)


def _version_of(connection: sqlite3.Connection) -> tuple[sqlite3.Connection, int]:
    # Each connection counts from another number.
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return connection, version
