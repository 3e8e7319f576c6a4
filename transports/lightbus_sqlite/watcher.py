"""`Watcher`: notices, at next to no cost, when there is something for a listener in the file."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from lightbus_sqlite import schema
from lightbus_sqlite.database import close_before_fork, connect

# How often the file is looked at while a listener waits, in seconds. A look is one system call.
_PERIOD = 0.015


@attrs.frozen(eq=False)
class _Waiting:
    listener: int
    wake: Callable[[], None]


class Watcher:
    """Watches the file for the listeners of one event loop, in a thread.

    SQLite counts the commits of other connections (``PRAGMA data_version``): only when that number
    has changed, or a delay is over, are the tables looked at.
    """

    def __init__(self, file: Path, loop: asyncio.AbstractEventLoop) -> None:
        # Held around every use of the connection, and by a thread that forks.
        self.lock = threading.Lock()
        self._file = file
        self._loop = loop
        self._connection: sqlite3.Connection | None = None
        self._seen_version = -1
        self._next_look = 0.0
        self._waiting: set[_Waiting] = set()
        self._changed = threading.Condition()
        self._is_closed = False
        self._ended: concurrent.futures.Future[None] | None = None
        close_before_fork(self)

    def wake_when_available(self, listener: int, wake: Callable[[], None]) -> None:
        """Call `wake` once, on the loop, when there is an event for a listener."""
        with self._changed:
            self._waiting.add(_Waiting(listener, wake))
            self._next_look = 0.0
            self._changed.notify()
        if self._ended is None:
            self._ended = concurrent.futures.Future()
            self._ended.set_running_or_notify_cancel()
            threading.Thread(
                target=self._run, args=(self._ended,), name="lightbus-watch", daemon=True
            ).start()

    async def close(self) -> None:
        """End the thread and close the file. Closing again does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._ended is not None:
            await asyncio.wrap_future(self._ended)

    def disconnect(self) -> None:
        """Close the connection; the next look opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, ended: concurrent.futures.Future[None]) -> None:
        try:
            self._watch_until_closed()
        finally:
            with self.lock:
                self.disconnect()
            ended.set_result(None)

    def _watch_until_closed(self) -> None:
        while self._is_watching():
            try:
                while not self._has_news():
                    time.sleep(_PERIOD)
                with self.lock:
                    self._look()
            except (sqlite3.Error, OSError):
                # Those who wait meet the same error, and tell of it.
                self._wake(set(self._waiting))
                time.sleep(_PERIOD)

    def _is_watching(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return not self._is_closed

    def _has_news(self) -> bool:
        # Run for as long as all is quiet, so it is kept short.
        with self.lock:
            if self._connection is None:
                self._connection = connect(self._file)
                self._seen_version = -1
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return version != self._seen_version or time.time() >= self._next_look or self._is_closed

    def _look(self) -> None:
        connection = self._connection
        if connection is None:
            return  # a fork closed it just now
        # Read before the tables: what is committed in between is looked at twice, never missed.
        (self._seen_version,) = connection.execute("PRAGMA data_version").fetchone()
        now = time.time()
        with self._changed:
            self._next_look = math.inf
            waiting = set(self._waiting)
        ready = set()
        for one in waiting:
            (next_at,) = connection.execute(schema.NEXT_AVAILABLE_AT, (one.listener,)).fetchone()
            if next_at is not None and next_at <= now:
                ready.add(one)
            elif next_at is not None:
                self._next_look = min(self._next_look, next_at)
        self._wake(ready)

    def _wake(self, ready: set[_Waiting]) -> None:
        with self._changed:
            self._waiting -= ready
        for one in ready:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(one.wake)
