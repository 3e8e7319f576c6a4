"""Helpers that the tests of the SQLite transport share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.support import eventually
from lightbus.exceptions import TransportRefused
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport
from lightbus_sqlite.settings import SQLiteSettings

# The working folder of a Python process that imports from the tests.
TESTS = Path(__file__).parent.parent

# Long enough for a slow machine; a test that waits so long has failed.
PATIENCE = 10.0

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="gather",
    api_name="auth",
    events=frozenset({"user_deleted"}),
    concurrency=1,
    acknowledgement_timeout=60.0,
    delays=frozenset({0.1, 60.0}),
)

# From 3.12 on, Python warns of every fork of a process with threads, which these tests do.
forking = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def make_transport(file: Path, **settings: Any) -> SQLiteTransport:
    """Return a transport over `file` that is not open."""
    return SQLiteTransport(SQLiteSettings(path=str(file), **settings), client_name="test")


async def open_transport(file: Path, **settings: Any) -> SQLiteTransport:
    """Return an open transport over `file`, at which `SUBSCRIPTION` is declared."""
    transport = make_transport(file, **settings)
    await transport.open(timeout=PATIENCE)
    await transport.declare(SUBSCRIPTION, timeout=PATIENCE)
    return transport


def message(username: str) -> EventMessage:
    """Return an event that `SUBSCRIPTION` receives."""
    return EventMessage.create("auth", "user_deleted", {"username": username})


def name_of(delivery: Delivery) -> str:
    """Return the username that `message` was called with."""
    return str(delivery.message.kwargs["username"])


async def count_waiting(file: Path) -> int:
    """Return how many events wait in the file, as another process would see it."""
    transport = await open_transport(file)
    try:
        return (await transport.stats(SUBSCRIPTION)).total
    finally:
        await transport.close()


def receive_elsewhere(file: Path, *, within: float, lease: float) -> list[tuple[str, int]]:
    """Return the name and the attempt of each event that a worker on another event loop receives
    within so many seconds.
    """

    async def receive() -> list[tuple[str, int]]:
        transport = await open_transport(file, lease=lease)
        stream = await transport.subscribe(SUBSCRIPTION)
        received = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                async for delivery in stream:
                    received.append((name_of(delivery), delivery.attempt))
                    await delivery.ack()
        await transport.close()
        return received

    return asyncio.run(receive())


async def replace(file: Path) -> None:
    """Replace `file` with another file of events."""
    for part in [*file.parent.iterdir()]:
        part.unlink()
    await (await open_transport(file)).close()


async def refusal_of(file: Path) -> str:
    """Return the message of the error that opening the file raises."""
    transport = make_transport(file)
    with pytest.raises(TransportRefused) as raised:
        await transport.open(timeout=PATIENCE)
    assert str(file) in str(raised.value)
    await transport.close()
    return str(raised.value)


async def wait_until_watching() -> None:
    """Return once a stream waits for events to appear in its file."""
    await eventually(lambda: any(one.name == "lightbus-watch" for one in threading.enumerate()))


@contextlib.contextmanager
def lock_file(file: Path) -> Iterator[None]:
    """Lock the file, as another process does that writes to it."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


def fork() -> None:
    """Create a child process that exits at once, and wait for it."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def run_in_small_file_system(folder: Path, script: str) -> Any:
    """Run `script` with `folder`, a file system of 8 MiB, as its argument; return the JSON that it
    prints.
    """
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("only Linux's unshare can make a small file system for a test")
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=8m none '{folder}'"
    ended = subprocess.run(
        ["unshare", "-rm",  # noqa: S607 - wherever it is
          "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c",
         textwrap.dedent(script), str(folder)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
