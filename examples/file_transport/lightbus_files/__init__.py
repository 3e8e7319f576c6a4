"""A transport that stores each event of each listener in a file."""

from lightbus_files.features import FileTransport

__all__ = ["FileTransport"]
