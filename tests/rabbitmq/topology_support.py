"""What the tests of `lightbus topology` share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightbus import Worker
from rabbitmq_support import MakeBus
from service import AUTH_API, Service

TIMEOUT = 60.0
QUEUE = "lightbus:shop:welcome:auth"
DEAD = "lightbus:shop:dead"
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}

# How the service wants its queue
WANTED: dict[str, Any] = {
    **QUORUM,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
}

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
        """Run it, expect an exit code, and return what it said."""
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
        """Return what it shows as JSON, by kind and name."""
        shown = json.loads(await self("--format", "json", code=code))
        return {f"{one['kind']} {one['name']}": one for one in shown}


class KilledMigrations:
    """Migrates in a process that is killed after so many steps."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "killed_migrations.py", "lightbus.json"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def run(self, steps: int) -> bool:
        """Migrate; return whether it was killed before it was done."""
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
    """Have the broker hold what the service wants."""
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with Worker(bus):
        pass
