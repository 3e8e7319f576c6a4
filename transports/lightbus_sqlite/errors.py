"""SQLite's errors, sorted into what they mean for the bus."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable

# https://www.sqlite.org/rescode.html
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNUSABLE = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database. Name another file, or move this one away",
    sqlite3.SQLITE_CORRUPT: "it is damaged. Stop all that use it and move it away, or restore it "
    "from a backup (`sqlite3 FILE .recover` saves what can be read)",
    sqlite3.SQLITE_READONLY: "it, or its folder, cannot be written to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Its folder must exist and be writable",
    sqlite3.SQLITE_PERM: "this user may not use it",
}


def is_busy(error: Exception) -> bool:
    """Return whether another connection has the file locked for now."""
    return _code(error) in _BUSY


def is_full(error: Exception) -> bool:
    """Return whether there is no room left for the file."""
    return _code(error) == sqlite3.SQLITE_FULL


def translated(error: Exception, file: Path) -> TransportError:
    """Return what `error`, raised by SQLite or by the file system, means, chained to it."""
    if isinstance(error, TransportError):
        return error
    meaning = _meaning(error, file)
    meaning.__cause__ = error
    return meaning


def _meaning(error: Exception, file: Path) -> TransportError:
    if is_full(error):
        return TransportUnavailable(f"The disk of SQLite file {file} is full.")
    if unusable := _UNUSABLE.get(_code(error)):
        return TransportRefused(f"SQLite file {file} cannot be used: {unusable}.")
    if isinstance(error, OSError):
        return TransportRefused(
            f"SQLite file {file} cannot be used: {error.strerror}. Its folder must be writable. "
            "Otherwise set `path` to another file."
        )
    return TransportUnavailable(f"SQLite file {file} failed: {error}.")


def _code(error: Exception) -> int:
    # The low byte is the primary code, the rest says more.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
