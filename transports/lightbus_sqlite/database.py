"""`Database`: one file, written by one thread for an event loop, many operations to a commit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import attrs

from lightbus.exceptions import TransportClosed, TransportRefused, TransportUnavailable
from lightbus.log import get_logger
from lightbus_sqlite.connection import Connection, File
from lightbus_sqlite.errors import is_busy, is_full, translated

_log = get_logger(__name__)

Work = Callable[[sqlite3.Connection], Any]

_NAME = "lightbus-sqlite"

# How much longer than its time limit an operation is waited for, in seconds: after that the disk
# itself must be stuck.
_GRACE = 2.0

# How often, in seconds, the thread checks that the event loop was not closed.
_CHECK_PERIOD = 1.0

# More operations than this are committed in turns, so that other processes get theirs.
_MOST_IN_A_COMMIT = 500


@attrs.define(eq=False)
class _Operation:
    work: Work
    must_last: bool
    deadline: float
    timeout: float
    result: asyncio.Future[Any]

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.result.done()

    def fail(self, error: Exception) -> None:
        def unless_given_up() -> None:
            if not self.is_given_up:
                self.result.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop ended without waiting for it
            self.result.get_loop().call_soon_threadsafe(unless_given_up)


@attrs.define(eq=False)
class _Repeated:
    work: Work
    period: float
    next_at: float


def _succeed(batch: list[_Operation], results: list[Any]) -> None:
    def unless_given_up() -> None:
        for operation, value in zip(batch, results, strict=True):
            if not operation.is_given_up:
                operation.result.set_result(value)

    # Once for all of them: to wake a loop costs more than an operation.
    with contextlib.suppress(RuntimeError):  # the loop ended without waiting for it
        batch[0].result.get_loop().call_soon_threadsafe(unless_given_up)


class Database:
    """The file of one transport.

    The operations of one turn of the loop share a commit, and so do those that come in while a
    commit is under way. What must last is written through to the disk before it is confirmed; the
    rest survives a crash of any process, and a power failure at worst undoes it, so that events
    come again.
    """

    def __init__(self, file: File) -> None:
        self._path = file.path
        self._connection = Connection(file)
        self._is_closed = False
        self._of_this_turn: list[_Operation] = []
        self._operations: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._was_told_to_end = False
        self._ended: Future[None] | None = None
        self._repeated: list[_Repeated] = []
        self._synchronous: tuple[sqlite3.Connection, str] | None = None

    async def write(self, work: Work, *, timeout: float, must_last: bool = False) -> Any:
        """Return what `work` returns, once the transaction that it ran in is committed.

        Raises:
            TransportUnavailable: The file was locked for `timeout` seconds, or the disk is full.
            TransportRefused: The file cannot be used.
            TransportClosed: The database was closed.
            TimeoutError: The disk did not answer in time; what was to be written may be.
        """
        if self._is_closed:
            raise TransportClosed(f"SQLite file {self._path} was closed.")
        loop = asyncio.get_running_loop()
        if self._ended is None:
            run = functools.partial(self._run, loop)
            self._ended = self._connection.run_thread(run, name=_NAME)
        result: asyncio.Future[Any] = loop.create_future()
        deadline = time.monotonic() + timeout
        if not self._of_this_turn:
            loop.call_soon(self._hand_over)
        self._of_this_turn.append(_Operation(work, must_last, deadline, timeout, result))
        async with asyncio.timeout(timeout + _GRACE):
            return await result

    def repeat(self, work: Work, *, every: float) -> Callable[[], None]:
        """Do `work` every so many seconds, also while the loop is blocked; return what ends that.

        It runs on the thread, which the first `write` starts.
        """
        repeated = _Repeated(work, every, time.monotonic() + every)
        self._repeated = [*self._repeated, repeated]

        def end() -> None:
            self._repeated = [one for one in self._repeated if one is not repeated]

        return end

    async def close(self) -> None:
        """Commit what was given to `write`, and close the file. Closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._hand_over()
            self._operations.put(None)
        if self._ended is not None:
            await asyncio.shield(asyncio.wrap_future(self._ended))

    def _hand_over(self) -> None:
        # Not one by one: the thread would begin a commit with the first, and the rest of the turn
        # would wait for the next one.
        operations, self._of_this_turn = self._of_this_turn, []
        for operation in operations:
            self._operations.put(operation)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._was_told_to_end and not loop.is_closed():
            batch = self._with_what_waits([], wait=True)
            self._do_repeated_work()
            self._commit(batch)

    def _with_what_waits(self, batch: list[_Operation], *, wait: bool = False) -> list[_Operation]:
        """Return `batch` with what came in meanwhile, and without what comes too late.

        With `wait`, and an empty batch, it waits for an operation, until other work is due.
        """
        with contextlib.suppress(queue.Empty):
            while len(batch) < _MOST_IN_A_COMMIT and not self._was_told_to_end:
                operation = self._operations.get(wait and not batch, self._longest_wait())
                if operation is None:
                    self._was_told_to_end = True
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
        return [op for op in batch if op.deadline > now and not op.is_given_up]

    def _longest_wait(self) -> float:
        now = time.monotonic()
        return max(0.0, min([_CHECK_PERIOD, *(one.next_at - now for one in self._repeated)]))

    def _do_repeated_work(self) -> None:
        for repeated in self._repeated:
            if repeated.next_at > time.monotonic():
                continue
            try:
                with self._connection.lock:
                    self._run_in_transaction([repeated.work])
            except Exception as error:
                if is_busy(error):
                    return  # it stays due, and what follows would meet the same lock
                # The next write meets the same error, and reports it.
                _log.debug("Repeated work on the SQLite file failed.", reason=str(error))
            repeated.next_at = time.monotonic() + repeated.period

    def _commit(self, batch: list[_Operation]) -> None:
        has_made_room = False
        while batch:
            must_last = any(operation.must_last for operation in batch)
            try:
                with self._connection.lock:
                    results = self._run_in_transaction(
                        [operation.work for operation in batch], must_last=must_last
                    )
            except (sqlite3.Error, OSError, TransportRefused) as error:
                if is_busy(error):
                    self._do_repeated_work()
                    batch = self._with_what_waits(batch)
                elif is_full(error) and not has_made_room:
                    self._make_room()
                    has_made_room = True
                else:
                    self._fail(batch, translated(error, self._path))
                    return
            except Exception as error:
                self._fail(batch, error)
                return
            else:
                _succeed(batch, results)
                return

    def _make_room(self) -> None:
        # What is in the log can be written over once it is in the database, too: so on a full disk
        # events can still be settled, which makes room for others.
        errors = (sqlite3.Error, OSError, TransportRefused)
        with contextlib.suppress(*errors), self._connection.lock:
            self._connection.opened().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _fail(self, batch: list[_Operation], error: Exception) -> None:
        if len(batch) == 1:
            batch[0].fail(error)
        else:
            # The fault may be with one of them, such as an event that is too large.
            for operation in batch:
                self._commit([operation])

    def _run_in_transaction(self, works: list[Work], *, must_last: bool = False) -> list[Any]:
        connection = self._connection.opened()
        self._connection.check_place()
        level = "FULL" if must_last else "NORMAL"
        if self._synchronous != (connection, level):
            connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = connection, level
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [work(connection) for work in works]
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
                connection.execute("ROLLBACK")
            raise
        return results
