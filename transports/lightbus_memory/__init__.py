"""The memory transport: events in the memory of one process, for tests and small programs."""

from lightbus_memory.transport import MemoryTransport

__all__ = ["MemoryTransport"]
