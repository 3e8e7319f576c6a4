"""Shared by the tests of `lightbus topology`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiormq.abc import DeliveredMessage

from lightbus import Worker
from lightbus.operations.topology import topology_of
from lightbus.transport.records import MigrationProgress
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Topology
from service import AUTH_API, Service

TIMEOUT = 60.0
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}

# The desired settings of the listener's queue
WANTED: dict[str, Any] = {
    **QUORUM,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
}

# An earlier version of the queue, with other settings
OLD: dict[str, Any] = {
    **QUORUM,
    "x-delivery-limit": 50,
    "x-dead-letter-exchange": "amq.fanout",
    "x-dead-letter-routing-key": "elsewhere",
}
TEMPORARY = f"{QUEUE}#migrating"
BINDINGS = {("lightbus:auth", "user_created", QUEUE), ("lightbus::return", f"*.{QUEUE}", QUEUE)}

BUS = (
    AUTH_API
    + """
@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
"""
)


class TopologyCommand:
    """Runs `lightbus topology` for the service "shop"."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        Service(folder, BUS, url=url, name="shop", acknowledgement_timeout=1)

    async def __call__(self, *options: str, code: int = 0) -> str:
        """Run the command, check its exit code, and return its output."""
        command = [sys.executable, "-m", "lightbus.cli", "topology", *options]
        ended = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "250"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        said = ended.stdout + ended.stderr
        assert ended.returncode == code, said
        assert "Traceback" not in said, said
        return said

    async def states(self, *, code: int) -> dict[str, dict[str, str]]:
        """Return its JSON output, by kind and name."""
        shown = json.loads(await self("--format", "json", code=code))
        return {f"{one['kind']} {one['name']}": one for one in shown}


class KilledMigrations:
    """Migrates in a process that is killed after a number of steps."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "killed_migrations.py", "lightbus.json"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def run(self, steps: int) -> bool:
        """Migrate; return whether the process was killed before it was done."""
        status = await asyncio.to_thread(self._run, steps)
        assert status in (0, signal.SIGKILL)
        return status != 0

    def _run(self, steps: int) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=TIMEOUT)


async def declare(make_bus: MakeBus) -> None:
    """Declare the objects of the service."""
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with Worker(bus):
        pass


async def declare_old_queue(make_bus: MakeBus, broker: Broker, arguments: dict[str, Any]) -> None:
    """Declare the listener's queue with other arguments and a stale binding."""
    await declare(make_bus)
    await broker.channel.queue_delete(QUEUE)
    await broker.channel.queue_declare(QUEUE, durable=True, arguments=arguments)
    for exchange, routing_key, _ in (*BINDINGS, ("lightbus:auth", "user_deleted", QUEUE)):
        await broker.channel.queue_bind(QUEUE, exchange, routing_key)


async def fire(make_bus: MakeBus, *names: str) -> None:
    """Fire an event for each name."""
    bus = make_bus()
    # The first event declares the exchange, so that the others keep their order.
    await bus.auth.user_created.fire_async(username=names[0], email="e")
    firing = [bus.auth.user_created.fire_async(username=name, email="e") for name in names[1:]]
    await asyncio.gather(*firing)


async def migrate(
    make_bus: MakeBus,
    on_progress: Callable[[MigrationProgress], None] = lambda _: None,
    **settings: Any,
) -> None:
    """Migrate in this process."""
    bus = make_bus(acknowledgement_timeout=1, **settings)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with topology_of(bus.client) as known:
        await known.migrate(on_progress=on_progress)


async def get_events(broker: Broker, count: int) -> list[DeliveredMessage]:
    """Get events from the listener's queue."""
    return [await broker.get(QUEUE) for _ in range(count)]


def username_of(message: DeliveredMessage) -> str:
    """Return the username in an event."""
    return str(json.loads(message.body)["username"])


def queue_bindings(topology: Topology) -> set[tuple[str, str, str]]:
    """Return the bindings of the listener's queue and of its temporary queue."""
    return {binding for binding in topology.bindings() if binding[2].startswith(QUEUE)}
