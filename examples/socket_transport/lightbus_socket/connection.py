"""`Connection`: requests to the broker over one TCP connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

# Bytes of a line: an event of 128 MiB, in base 64
MAX_LINE = 200 * 1024 * 1024


class Connection:
    """A TCP connection, on which many requests run at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect to the broker."""
        return cls(*await asyncio.open_connection(host, port, limit=MAX_LINE))

    @property
    def is_lost(self) -> bool:
        """Whether the connection is closed."""
        return self._reading.done()

    async def request(self, do: str, **arguments: Any) -> Any:
        """Send a request, and return its result.

        Raises:
            ConnectionError: The connection was lost before the reply.
        """
        number, reply = next(self._numbers), asyncio.get_running_loop().create_future()
        if self.is_lost:
            raise ConnectionError
        self._replies[number] = reply
        try:
            request = {"id": number, "do": do, **arguments}
            self._writer.write(json.dumps(request).encode() + b"\n")
            return await reply
        finally:
            del self._replies[number]

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                while line := await reader.readline():
                    answer = json.loads(line)
                    reply = self._replies.get(answer["id"])
                    if reply is not None and not reply.done():
                        reply.set_result(answer["result"])
        finally:
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(ConnectionError())
            self._writer.close()
