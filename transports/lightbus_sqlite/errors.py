"""Translates the errors of SQLite and of the file system into transport errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable

# https://www.sqlite.org/rescode.html
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNUSABLE = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database. Set `path` to another file, or move "
    "this one away",
    sqlite3.SQLITE_CORRUPT: "it is damaged. Stop all processes that use it, and move it away or "
    "restore it from a backup (`sqlite3 FILE .recover` saves what can be read)",
    sqlite3.SQLITE_READONLY: "it or its directory is not writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Its directory must exist and be writable",
    sqlite3.SQLITE_PERM: "this user lacks permission",
}


def is_busy(error: Exception) -> bool:
    """Return whether another connection holds the lock on the file."""
    return _code(error) in _BUSY


def is_full(error: Exception) -> bool:
    """Return whether the disk is full."""
    return _code(error) == sqlite3.SQLITE_FULL


def transport_error(error: Exception, file: Path) -> TransportError:
    """Return the transport error for `error`, which becomes its cause."""
    if isinstance(error, TransportError):
        return error
    translated = _translate(error, file)
    translated.__cause__ = error
    return translated


def _translate(error: Exception, file: Path) -> TransportError:
    if is_full(error):
        return TransportUnavailable(f"The disk of SQLite file {file} is full.")
    if unusable := _UNUSABLE.get(_code(error)):
        return TransportRefused(f"SQLite file {file} cannot be used: {unusable}.")
    if isinstance(error, OSError):
        return TransportRefused(
            f"SQLite file {file} cannot be used: {error.strerror}. Its directory must be writable. "
            "Otherwise set `path` to another file."
        )
    return TransportUnavailable(f"SQLite file {file} failed: {error}.")


def _code(error: Exception) -> int:
    # The low byte is the primary result code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
