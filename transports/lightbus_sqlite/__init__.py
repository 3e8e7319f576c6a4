"""Events in one SQLite file, shared by every process of a machine: durable, and no server."""

from lightbus_sqlite.transport import SQLiteTransport

__all__ = ["SQLiteTransport"]
