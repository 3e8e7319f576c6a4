"""A small HTTP/1.1 server for few clients, with a time limit for each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import attrs

from lightbus.log import get_logger

_log = get_logger(__name__)

# One more client replaces the oldest, so that clients that hold connections cannot keep others out.
MAX_CLIENTS = 32

# Connections that may wait to be accepted
_BACKLOG = 64

# Seconds for a client to send its request, and again to read the answer
CLIENT_TIMEOUT = 5.0

# Bytes of a request line with its headers
_MAX_REQUEST = 16_384

# Bytes after a request that are read and ignored. Unread bytes would reset the connection before
# the client has the answer.
_MAX_UNREAD = 65_536


@attrs.frozen
class Answer:
    """An answer to a request.

    Attributes:
        status: The status code.
        content_type: The media type of the body.
        body: The content.
    """

    status: HTTPStatus
    content_type: str
    body: bytes


class HTTPServer:
    """Answers GET and HEAD on a thread and an event loop of its own.

    Args:
        answer: Returns the answer to a request for a target, such as ``/live?verbose``. It is
            awaited on the event loop of the server, and must not block.
        host: The address to listen at.
        port: The port; 0 for any free one.

    Raises:
        OSError: The server cannot listen there.
    """

    def __init__(self, answer: Callable[[str], Awaitable[Answer]], *, host: str, port: int) -> None:
        self._answer = answer
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        started: concurrent.futures.Future[tuple[str, int]] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(host, port, started), name="lightbus-health", daemon=True
        )
        self._thread.start()
        self._address = started.result()

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port that the server listens at."""
        return self._address

    def close(self) -> None:
        """Disconnect all clients and stop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(
        self, host: str, port: int, started: concurrent.futures.Future[tuple[str, int]]
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve(host, port, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(
        self, host: str, port: int, started: concurrent.futures.Future[tuple[str, int]]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(
            self._accept, host, port, limit=_MAX_REQUEST, backlog=_BACKLOG
        )
        started.set_result(server.sockets[0].getsockname()[:2])
        await self._stop.wait()
        for client in self._clients:
            client.cancel()
        # If the server closed first, a task of asyncio that accepts a connection would leave its
        # socket open. The loop is bounded, because more clients can connect meanwhile.
        for _ in range(MAX_CLIENTS):
            if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(tasks)
        server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stop.is_set():
            writer.transport.abort()
            return
        if len(self._clients) >= MAX_CLIENTS:
            oldest = next(iter(self._clients))
            oldest.cancel()
            self._drop(oldest)
        client = self._loop.create_task(self._serve_client(reader, writer))
        self._clients[client] = writer
        client.add_done_callback(self._drop)

    def _drop(self, client: asyncio.Task[None]) -> None:
        # Not in the task itself, which does not run if it is cancelled before it starts.
        if writer := self._clients.pop(client, None):
            writer.transport.abort()

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT):
                request = await _read_request(reader)
            has_body, answer = await self._answer_to(request)
            async with asyncio.timeout(CLIENT_TIMEOUT):
                await _write(writer, answer, has_body=has_body)
                await _read_rest(reader)
        except (TimeoutError, OSError, EOFError):
            pass  # the client is too slow, or gone

    async def _answer_to(self, request: list[str]) -> tuple[bool, Answer]:
        """Return whether the client wants the body, and the answer."""
        match request:
            case [("GET" | "HEAD") as method, target, version] if version.startswith("HTTP/1."):
                try:
                    return method == "GET", await self._answer(target)
                except Exception:
                    _log.exception("A request on the health port failed.")
                    return True, _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)
            case [_, _, version] if version.startswith("HTTP/1."):
                return True, _refusal(HTTPStatus.METHOD_NOT_ALLOWED)
            case []:
                return True, _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            case _:
                return True, _refusal(HTTPStatus.BAD_REQUEST)


async def _read_request(reader: asyncio.StreamReader) -> list[str]:
    """Read a request with its headers and return the words of its first line; none if the headers
    are too long.

    Raises:
        EOFError: The client closed the connection early.
    """
    lines: list[bytes] = []
    size = 0
    while not lines or lines[-1] not in (b"\r\n", b"\n"):
        try:
            line = await reader.readline()
        except ValueError:  # longer than the reader's limit
            return []
        if not line.endswith(b"\n"):
            raise EOFError
        size += len(line)
        if size > _MAX_REQUEST:
            return []
        lines.append(line)
    return lines[0].decode("latin-1").split() or ["?"]


async def _write(writer: asyncio.StreamWriter, answer: Answer, *, has_body: bool) -> None:
    is_refused = answer.status == HTTPStatus.METHOD_NOT_ALLOWED
    allowed = "Allow: GET, HEAD\r\n" if is_refused else ""
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{allowed}"
        "Connection: close\r\n\r\n"
    )
    # `drain` then waits until everything is sent.
    writer.transport.set_write_buffer_limits(high=0)
    writer.write(head.encode("latin-1") + (answer.body if has_body else b""))
    await writer.drain()
    writer.write_eof()


async def _read_rest(reader: asyncio.StreamReader) -> None:
    """Read a limited number of bytes, until the client closes the connection."""
    unread = 0
    while unread < _MAX_UNREAD and (data := await reader.read(_MAX_UNREAD)):
        unread += len(data)


def _refusal(status: HTTPStatus) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())
