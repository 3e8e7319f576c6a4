"""A TCP proxy between a client and a broker, with which tests cut the link or make it go silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class TcpProxy:
    """Forwards bytes both ways until it is told otherwise.

    Attributes:
        port: Where it listens.
        bytes_per_second: How fast each connection is, each way; None for as fast as can be.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.bytes_per_second: int | None = None
        self._target_port = port
        self._requests = asyncio.Event()
        self._answers = asyncio.Event()
        self.resume()
        self._links: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    def silence(self) -> None:
        """Forward nothing more, and keep the connections: a half-open link."""
        self._requests.clear()
        self._answers.clear()

    def silence_answers(self) -> None:
        """Forward nothing more of what the broker says."""
        self._answers.clear()

    def resume(self) -> None:
        """Forward again, what came meanwhile too."""
        self._requests.set()
        self._answers.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writers in list(self._links.values()):
            for writer in writers:
                writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Link a new connection to the broker."""
        try:
            theirs = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()  # as the broker that is away would
            return
        their_reader, their_writer = theirs
        for source, sink, gate in (
            (reader, their_writer, self._requests),
            (their_reader, writer, self._answers),
        ):
            task = asyncio.create_task(self._forward(source, sink, gate))
            self._links[task] = (writer, their_writer)
            task.add_done_callback(self._links.pop)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await gate.wait()
                if self.bytes_per_second is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
                sink.write(data)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def running_proxy(port: int) -> AsyncIterator[TcpProxy]:
    """A proxy to a port of 127.0.0.1, for the length of a `with` block."""
    proxy = TcpProxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        tasks = list(proxy._links)
        proxy.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
