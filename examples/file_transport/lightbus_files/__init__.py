"""Events in files, one for each listener that wants it."""

from lightbus_files.transport import FileTransport

__all__ = ["FileTransport"]
