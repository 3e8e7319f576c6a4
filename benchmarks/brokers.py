"""The brokers of a run, with a separate virtual host, database or file for each measurement."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from benchmarks.environments import KEPT, LIGHTBUS_REDIS, SQLITE3, Contender
from ports import free_ports, is_open
from rabbitmq_node import RabbitMQNode

# Seconds
REDIS_PATIENCE = 10.0

# The tests configure small nodes; these are a server's defaults.
RABBITMQ_SETTINGS = {"raft.wal_max_size_bytes": 512 * 1024 * 1024}


class Brokers:
    """A private RabbitMQ, a private Redis if it is installed, and a directory on disk."""

    def __init__(self, folder: Path, node: RabbitMQNode, redis_port: int | None) -> None:
        self._folder = folder
        self._node = node
        self._redis_port = redis_port

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Self]:
        """Run the brokers for the duration of a `with` block, then remove their data."""
        with contextlib.ExitStack() as stack:
            KEPT.mkdir(exist_ok=True)
            # The system's temporary directory may not be on disk.
            folder = Path(stack.enter_context(TemporaryDirectory(dir=KEPT)))
            node = RabbitMQNode(folder / "rabbitmq", settings=RABBITMQ_SETTINGS)
            node.start()
            stack.callback(node.kill)
            port = stack.enter_context(_running_redis(folder)) if _redis() else None
            yield cls(folder, node, port)

    @property
    def versions(self) -> dict[str, str]:
        """The brokers and their versions."""
        found = {"RabbitMQ": self._node.version}
        if redis := _redis():
            told = subprocess.run([redis, "--version"], capture_output=True, text=True, check=True)
            found["Redis"] = told.stdout.split("v=")[1].split()[0]
        return found

    @contextlib.contextmanager
    def place(self, contender: Contender, transport: str) -> Iterator[str]:
        """Yield the URL or path of an empty place; remove it after the `with` block."""
        name = secrets.token_hex(4)
        if contender is LIGHTBUS_REDIS:
            yield f"redis://127.0.0.1:{self._redis_port}/0"
            self._redis_cli("flushall")
        elif contender is SQLITE3 or transport == "sqlite":
            folder = self._folder / name
            folder.mkdir()
            yield str(folder / "events.db")
            shutil.rmtree(folder)
        elif transport == "memory":
            yield ""
        else:
            self._node.create_vhost(name)
            try:
                yield self._node.url(name)
            finally:
                self._node.delete_vhost(name)

    def _redis_cli(self, command: str) -> None:
        if self._redis_port is not None:
            subprocess.run(
                ["redis-cli", "-p", str(self._redis_port), command],  # noqa: S607
                stdout=subprocess.DEVNULL,
                check=True,
            )


def _redis() -> str | None:
    return shutil.which("redis-server")


@contextlib.contextmanager
def _running_redis(folder: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    # As durable as the others: Redis replies after the event is on disk.
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
    }
    command = ["redis-server"]
    for name, value in options.items():
        command += [f"--{name}", value]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + REDIS_PATIENCE
        while not is_open(port):
            if time.monotonic() > deadline or server.poll() is not None:
                raise TimeoutError("redis-server did not start")
            time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()
