"""`Database`: writes to the file in one thread per event loop, with many operations per commit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import attrs

from lightbus.exceptions import TransportClosed, TransportRefused, TransportUnavailable
from lightbus.log import get_logger
from lightbus_sqlite.connection import Connection, File
from lightbus_sqlite.errors import is_busy, is_full, transport_error

_log = get_logger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_NAME = "lightbus-sqlite"

# How long any write may wait for a locked file, unless its caller says otherwise, in seconds
OPERATION_TIMEOUT = 30.0

# How long an operation may take beyond its timeout, in seconds. The thread reports a locked file in
# time, so after that the disk itself hangs.
_GRACE_PERIOD = 2.0

# How often, in seconds, the thread checks whether the event loop was closed
_CHECK_PERIOD = 1.0

# A longer queue of operations takes several commits, so that other processes can write in between.
_MAX_BATCH_SIZE = 500


class NoResponse(TransportUnavailable):
    """The disk did not respond. The transaction may be committed later."""


@attrs.define(eq=False)
class _Operation:
    work: Work
    durable: bool
    deadline: float
    timeout: float
    result: asyncio.Future[Any]

    @property
    def is_abandoned(self) -> bool:
        """Whether its caller was cancelled or timed out."""
        return self.result.done()

    def fail(self, error: Exception) -> None:
        def set_exception() -> None:
            if not self.is_abandoned:
                self.result.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.result.get_loop().call_soon_threadsafe(set_exception)


@attrs.define(eq=False)
class _PeriodicWork:
    work: Work
    period: float
    next_at: float


def _succeed(batch: list[_Operation], results: list[Any]) -> None:
    def set_results() -> None:
        for operation, value in zip(batch, results, strict=True):
            if not operation.is_abandoned:
                operation.result.set_result(value)

    # One call for all of them, because waking a loop costs more than an operation.
    with contextlib.suppress(RuntimeError):  # the loop is closed
        batch[0].result.get_loop().call_soon_threadsafe(set_results)


class Database:
    """The file of one transport.

    Operations that are added in one iteration of the event loop share a commit, and so do those
    that are added during a commit. A durable operation is synchronized to the disk before it is
    confirmed. Any other survives a crash of every process; a power failure may undo it, so that
    events are redelivered.
    """

    def __init__(self, file: File) -> None:
        self._path = file.path
        self._connection = Connection(file)
        self._is_closed = False
        self._unsubmitted: list[_Operation] = []
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._is_stopping = False
        self._ended: Future[None] | None = None
        self._periodic: list[_PeriodicWork] = []
        self._synchronous: tuple[sqlite3.Connection, str] | None = None

    async def write(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        timeout: float | None = None,
        durable: bool = False,
    ) -> T:
        """Run `work` in a transaction, and return its result once the transaction is committed.

        Args:
            work: Is called with the connection, on the thread of the database.
            timeout: How long to wait for a locked file, in seconds. Default: `OPERATION_TIMEOUT`.
            durable: Whether to synchronize to the disk first.

        Raises:
            TransportUnavailable: The file was locked for `timeout` seconds, or the disk is full.
            TransportRefused: The file cannot be used.
            TransportClosed: The database was closed.
            NoResponse: The disk did not respond in time. The transaction may be committed later.
        """
        if timeout is None:
            timeout = OPERATION_TIMEOUT
        if self._is_closed:
            raise TransportClosed(f"SQLite file {self._path} was closed.")
        loop = asyncio.get_running_loop()
        if self._ended is None:
            run = functools.partial(self._run, loop)
            self._ended = self._connection.run_thread(run, name=_NAME)
        future: asyncio.Future[Any] = loop.create_future()
        deadline = time.monotonic() + timeout
        if not self._unsubmitted:
            loop.call_soon(self._submit)
        self._unsubmitted.append(_Operation(work, durable, deadline, timeout, future))
        try:
            async with asyncio.timeout(timeout + _GRACE_PERIOD):
                result: T = await future
        except TimeoutError as error:
            raise NoResponse(
                f"SQLite file {self._path} did not respond within {timeout:.3g} s."
            ) from error
        return result

    def repeat(self, work: Work, *, every: float) -> Callable[[], None]:
        """Run `work` every `every` seconds, also while the event loop is blocked.

        It runs on the thread of the database, which the first `write` starts.

        Returns:
            A function that ends the repetition.
        """
        periodic = _PeriodicWork(work, every, time.monotonic() + every)
        self._periodic = [*self._periodic, periodic]

        def cancel() -> None:
            self._periodic = [one for one in self._periodic if one is not periodic]

        return cancel

    async def close(self) -> None:
        """Commit the operations that were added, and close the file. Closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._submit()
            self._operations.put(None)
        if self._ended is not None:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _submit(self) -> None:
        # All at once: otherwise the thread would commit the first, and the others would wait.
        operations, self._unsubmitted = self._unsubmitted, []
        for operation in operations:
            self._operations.put(operation)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._is_stopping and not loop.is_closed():
            batch = self._fill([], wait=True)
            self._run_periodic_work()
            self._commit(batch)

    def _fill(self, batch: list[_Operation], *, wait: bool = False) -> list[_Operation]:
        """Return `batch` with the operations that are queued, and without those that timed out.

        If `wait` is set and there are none, it waits for one until periodic work is due.
        """
        with contextlib.suppress(queue.Empty):
            while len(batch) < _MAX_BATCH_SIZE and not self._is_stopping:
                operation = self._operations.get(wait and not batch, self._idle_timeout())
                if operation is None:
                    self._is_stopping = True
                else:
                    batch.append(operation)
        now = time.monotonic()
        for operation in batch:
            if operation.deadline <= now:
                operation.fail(
                    TransportUnavailable(
                        f"SQLite file {self._path} was locked by another process for "
                        f"{operation.timeout:.3g} s; nothing was written to it."
                    )
                )
        return [op for op in batch if op.deadline > now and not op.is_abandoned]

    def _idle_timeout(self) -> float:
        now = time.monotonic()
        return max(0.0, min([_CHECK_PERIOD, *(one.next_at - now for one in self._periodic)]))

    def _run_periodic_work(self) -> None:
        for periodic in self._periodic:
            if periodic.next_at > time.monotonic():
                continue
            try:
                with self._connection.lock:
                    self._run_in_transaction([periodic.work])
            except Exception as error:
                if is_busy(error):
                    return  # all of it stays due, because the rest would fail in the same way
                # The next write fails with the same error and reports it.
                _log.debug("Periodic work on the SQLite file failed.", reason=str(error))
            periodic.next_at = time.monotonic() + periodic.period

    def _commit(self, batch: list[_Operation]) -> None:
        has_truncated_log = False
        while batch:
            durable = any(operation.durable for operation in batch)
            try:
                with self._connection.lock:
                    results = self._run_in_transaction(
                        [operation.work for operation in batch], durable=durable
                    )
            except (sqlite3.Error, OSError, TransportRefused) as error:
                if is_busy(error):
                    self._run_periodic_work()
                    batch = self._fill(batch)
                elif is_full(error) and not has_truncated_log:
                    self._truncate_log()
                    has_truncated_log = True
                else:
                    self._fail(batch, transport_error(error, self._path))
                    return
            except Exception as error:
                self._fail(batch, error)
                return
            else:
                _succeed(batch, results)
                return

    def _truncate_log(self) -> None:
        # Copying the write-ahead log into the database frees the space of the log. So events can be
        # settled on a full disk, which frees more space.
        errors = (sqlite3.Error, OSError, TransportRefused)
        with contextlib.suppress(*errors), self._connection.lock:
            self._connection.connect().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _fail(self, batch: list[_Operation], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].fail(error)
        else:
            # One of them alone may be the cause, such as an event that is too large.
            for operation in batch:
                self._commit([operation])

    def _run_in_transaction(self, works: list[Work], *, durable: bool = False) -> list[Any]:
        connection = self._connection.connect()
        self._connection.check_inode()
        level = "FULL" if durable else "NORMAL"
        if self._synchronous != (connection, level):
            connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = connection, level
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work(connection) for work in works]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite itself rolls back on some errors
                connection.execute("ROLLBACK")
            raise
        return results
