"""The HTTP server of the health port, and clients that are slow, many or wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from lightbus.worker import http_server
from lightbus.worker.http_server import Answer, HTTPServer

TIMEOUT = 20.0
LARGE = 50_000_000


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is dropped after half a second."""
    monkeypatch.setattr(http_server, "CLIENT_TIMEOUT", 0.5)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    async def answer(target: str) -> Answer:
        if target == "/fails":
            raise ValueError(target)
        body = b"x" * LARGE if target == "/large" else target.encode()
        return Answer(HTTPStatus.OK, "text/plain", body)

    server = HTTPServer(answer, host="127.0.0.1", port=0)
    yield server
    server.close()


def connected(server: HTTPServer, request: bytes = b"") -> socket.socket:
    client = socket.create_connection(server.address, TIMEOUT)
    client.sendall(request)
    return client


def answer_to(server: HTTPServer, request: bytes) -> bytes:
    """Return all that the server sends until it ends the connection."""
    with connected(server, request) as client, client.makefile("rb") as answer:
        return answer.read()


def status_of(server: HTTPServer, request: bytes) -> int:
    return int(answer_to(server, request).split()[1])


def is_dropped(client: socket.socket) -> bool:
    """Wait until the server ends the connection; return whether it sent nothing."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_request_is_answered_and_the_connection_ends(server: HTTPServer, ending: bytes) -> None:
    answer = answer_to(server, ending.join([b"GET /a?b HTTP/1.1", b"Host: x", b"", b""]))

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/plain",
        b"Content-Length: 4",
        b"Connection: close",
    ]
    assert body == b"/a?b"


def test_a_request_for_the_head_gets_no_body(server: HTTPServer) -> None:
    answer = answer_to(server, b"HEAD /a HTTP/1.1\r\n\r\n")

    assert answer.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /fails HTTP/1.1\r\n\r\n", 500),
    ],
    ids=["POST", "no version", "nothing", "TLS", "long target", "many fields", "a failure"],
)
def test_an_invalid_request_is_refused(server: HTTPServer, request_: bytes, status: int) -> None:
    assert status_of(server, request_) == status


def test_of_several_requests_on_a_connection_the_first_is_answered(server: HTTPServer) -> None:
    answer = answer_to(server, b"GET /a HTTP/1.1\r\n\r\n" + b"GET /b HTTP/1.1\r\n\r\n" * 100)

    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"/a")


@pytest.mark.parametrize("request_", [b"", b"GET /a HTTP/1.1\r\nA: "], ids=["nothing", "a part"])
def test_a_client_that_sends_no_whole_request_is_dropped(
    server: HTTPServer, request_: bytes
) -> None:
    with connected(server, request_) as client:
        assert is_dropped(client)


def test_a_client_that_sends_its_request_bit_by_bit_is_dropped(server: HTTPServer) -> None:
    deadline = time.monotonic() + TIMEOUT
    with connected(server, b"GET /a HTTP/1.1\r\nA: ") as client, contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            client.sendall(b"a")
            time.sleep(0.05)
    assert time.monotonic() < deadline


def test_a_client_that_does_not_read_its_answer_is_dropped(server: HTTPServer) -> None:
    before = open_files()
    with connected(server, b"GET /large HTTP/1.1\r\n\r\n") as slow:
        received = len(slow.recv(1))
        # The server closes its socket while it serves others. The client's socket remains open.
        deadline = time.monotonic() + TIMEOUT
        while open_files() > before + 1 and time.monotonic() < deadline:
            assert status_of(server, b"GET /a HTTP/1.1\r\n\r\n") == 200
        with contextlib.suppress(ConnectionError):
            while data := slow.recv(1_000_000):
                received += len(data)
        assert received < LARGE


def test_many_idle_clients_do_not_block_another(server: HTTPServer) -> None:
    before = open_files()
    held = [connected(server, b"GET /a") for _ in range(150)]

    assert status_of(server, b"GET /a HTTP/1.1\r\n\r\n") == 200
    assert open_files() - before - len(held) <= http_server.MAX_CLIENTS
    assert all(is_dropped(client) for client in held)
    for client in held:
        client.close()


def test_a_server_for_which_no_file_is_left_raises_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(_: str) -> Answer:
        raise AssertionError

    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "no file is left")

    monkeypatch.setattr(asyncio, "SelectorEventLoop", refuse)
    with pytest.raises(OSError, match="no file is left"):
        HTTPServer(answer, host="127.0.0.1", port=0)


def test_a_closed_server_drops_its_clients() -> None:
    async def answer(_: str) -> Answer:
        raise AssertionError

    server = HTTPServer(answer, host="127.0.0.1", port=0)
    with connected(server) as client:
        server.close()
        assert is_dropped(client)
    with pytest.raises(ConnectionRefusedError):
        connected(server)
