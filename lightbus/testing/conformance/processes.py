"""Starts and kills the processes of `child`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

import msgspec

from lightbus.testing.conformance import child
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.records import Subscription


class Child:
    """A process that uses the broker, until it is killed."""

    def __init__(self, process: asyncio.subprocess.Process, patience: float) -> None:
        self._process = process
        self._patience = patience

    async def read_line(self) -> str:
        """Return the next printed line; empty after the last one."""
        assert self._process.stdout is not None
        async with asyncio.timeout(self._patience):
            return (await self._process.stdout.readline()).decode().strip()

    async def kill(self) -> list[str]:
        """Kill it with SIGKILL; return the rest of what it printed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdout is not None
        rest = await self._process.stdout.read()
        await self._process.wait()
        # The last line may be cut off.
        return [line.decode() for line in rest.split(b"\n")[:-1]]


@contextlib.asynccontextmanager
async def child_of(
    broker: BrokerUnderTest, job: str, subscription: Subscription
) -> AsyncIterator[Child]:
    """Start a process that does a job of `child`; kill it when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        child.__name__,
        job,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    started = Child(process, broker.patience)
    try:
        assert process.stdin is not None
        orders = {
            "event_transport": broker.event_transport,
            "subscription": msgspec.to_builtins(subscription),
        }
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        await process.stdin.drain()
        yield started
    finally:
        await started.kill()


async def kill_workers_with(
    broker: BrokerUnderTest, subscription: Subscription, text: str, *, times: int = 1
) -> None:
    """Kill workers, one after the other, each after it has received the event of this text."""
    for _ in range(times):
        async with child_of(broker, "take", subscription) as worker:
            assert await worker.read_line() == text
            await worker.kill()
