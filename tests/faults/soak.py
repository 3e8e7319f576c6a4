"""`Soak`: services that fire and handle, in processes of their own, while faults are made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightbus
from faults.checker import Result
from lightbus import Api, Bus, Event
from lightbus.exceptions import SendOutcomeUnknown, TransportError
from rabbitmq_node import RabbitMQNode
from tcp_proxy import TcpProxy

WORKERS = 4
IN_FLIGHT = 50

# How long nothing may be handled, in seconds, before what is missing counts as lost.
PATIENCE = 90.0

# For how long faults are still made when all is fired and not all is handled, in seconds.
MORE_FAULTS = 30.0

BUS = """
import os
import lightbus

bus = lightbus.create()
# One write of one line is never mixed with another, nor half done where the process is killed.
journal = os.open(f"handled-{os.getpid()}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


async def handle(event):
    os.write(journal, f"{event.id}\\n".encode())


bus.soak.happened.listen(handle, listener_name="soak")
"""

Fault = Callable[["Soak"], Coroutine[Any, Any, None]]


class SoakApi(Api):
    happened = Event(parameters=("number",))

    class Meta:
        name = "soak"


class Soak:
    """One run, in a folder of its own.

    Args:
        folder: Where the workers keep what they need.
        transport: What the configuration says below ``event_transport``.
        events: How many events are fired.
        faults: What happens meanwhile, one of them at a time.
        every: How often, in seconds, more or less.
        seed: Decides which and when.
        rate: How many events are fired a second; as many as can be, by default.
        node: The RabbitMQ behind the transport, for faults that concern it.
        proxy: The way to it, likewise.
    """

    def __init__(
        self,
        folder: Path,
        transport: dict[str, Any],
        *,
        events: int,
        faults: Sequence[Fault],
        every: float,
        seed: int,
        rate: float | None = None,
        node: RabbitMQNode | None = None,
        proxy: TcpProxy | None = None,
    ) -> None:
        self.node = node
        self.proxy = proxy
        self.made: Counter[str] = Counter()
        self._folder = folder
        self._events = events
        self._faults = faults
        self._every = every
        self._random = random.Random(seed)
        self._rate = rate
        self._workers: list[subprocess.Popen[bytes]] = []
        self._killed: list[int] = []
        self._fired: set[str] = set()
        self._unknown: set[str] = set()
        default = {
            "event_transport": transport,
            # An event that was with two workers when they were lost waits for so long.
            "acknowledgement_timeout": 5,
            "max_attempts": 1000,
        }
        self._config = {"service_name": "soak", "apis": {"default": default}}

    async def run(self) -> Result:
        """Fire, handle and make faults, until every event was handled."""
        (self._folder / "bus.py").write_text(BUS)
        (self._folder / "lightbus.json").write_text(json.dumps(self._config))
        bus = lightbus.create(self._config)
        bus.client.register_api(SoakApi)
        bus.soak.happened.listen(lambda number: None, listener_name="soak")
        self._workers = [self._start_worker() for _ in range(WORKERS)]
        making_faults = asyncio.create_task(self._make_faults())
        try:
            await self._fire(bus)
            await self._until_handled(at_most=MORE_FAULTS)
            making_faults.cancel()
            await asyncio.wait({making_faults})
            await self._until_handled()
        finally:
            making_faults.cancel()
            await asyncio.wait({making_faults})
            await bus.client.close_async()
            for worker in self._workers:
                worker.send_signal(signal.SIGTERM)
            for worker in self._workers:
                await asyncio.to_thread(worker.wait, PATIENCE)
        if not making_faults.cancelled():
            making_faults.result()
        return Result.of(
            fired=self._fired,
            unknown=self._unknown,
            handled=self._handled(),
            killed=self._killed,
        )

    async def kill_worker(self) -> None:
        """Kill a worker, and start another in its place."""
        # One is never killed, so that there is progress.
        place = self._random.randrange(1, WORKERS)
        worker = self._workers[place]
        worker.kill()
        worker.wait()
        self._killed.append(worker.pid)
        self._workers[place] = self._start_worker()

    async def freeze_worker(self, seconds: float) -> None:
        """Stop a worker's process for a while."""
        worker = self._random.choice(self._workers)
        worker.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            worker.send_signal(signal.SIGCONT)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", "run", "--log-level", "critical"],
            cwd=self._folder,
        )

    async def _make_faults(self) -> None:
        while self._faults:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._every)
            fault = self._random.choice(self._faults)
            self.made[fault.__name__] += 1
            making = asyncio.create_task(fault(self))
            try:
                await asyncio.shield(making)
            except asyncio.CancelledError:
                # What a fault has broken, it also mends.
                await asyncio.wait({making})
                raise

    async def _fire(self, bus: Bus) -> None:
        numbers = iter(range(self._events))
        pause = IN_FLIGHT / self._rate if self._rate else 0

        async def fire_some() -> None:
            for number in numbers:
                started = time.monotonic()
                message = bus.client.message("soak", "happened", {"number": number})
                try:
                    await bus.client.fire_async(message)
                    self._fired.add(message.id)
                except SendOutcomeUnknown:
                    self._unknown.add(message.id)
                except TransportError:
                    pass  # it was not sent
                await asyncio.sleep(max(pause - (time.monotonic() - started), 0))

        await asyncio.gather(*(fire_some() for _ in range(IN_FLIGHT)))

    async def _until_handled(self, *, at_most: float = float("inf")) -> None:
        handled, started = 0, time.monotonic()
        last_news = started
        while len(found := {event for _, event in self._handled()} & self._fired) < len(
            self._fired
        ):
            if len(found) > handled:
                handled, last_news = len(found), time.monotonic()
            now = time.monotonic()
            if now - last_news > PATIENCE or now - started > at_most:
                return
            await asyncio.sleep(0.5)

    def _handled(self) -> Iterator[tuple[int, str]]:
        for file in self._folder.glob("handled-*"):
            pid = int(file.name.removeprefix("handled-"))
            for line in file.read_text().splitlines():
                yield pid, line


# Faults


async def kill_worker(soak: Soak) -> None:
    await soak.kill_worker()


async def freeze_worker(soak: Soak) -> None:
    await soak.freeze_worker(2)


async def cut_link(soak: Soak) -> None:
    assert soak.proxy is not None
    soak.proxy.cut()


async def silence_link(soak: Soak) -> None:
    assert soak.proxy is not None
    soak.proxy.silence()
    try:
        await asyncio.sleep(3)
    finally:
        soak.proxy.resume()


async def close_connections(soak: Soak) -> None:
    assert soak.node is not None
    with contextlib.suppress(OSError):  # one that has gone by itself meanwhile
        await asyncio.to_thread(soak.node.close_connections, "/")


async def restart_broker(soak: Soak) -> None:
    assert soak.node is not None
    await asyncio.to_thread(soak.node.stop)
    await asyncio.to_thread(soak.node.start)


async def kill_broker(soak: Soak) -> None:
    assert soak.node is not None
    await asyncio.to_thread(soak.node.kill)
    await asyncio.to_thread(soak.node.start)


async def alarm_broker(soak: Soak) -> None:
    assert soak.node is not None
    await asyncio.to_thread(soak.node.ctl, "set_vm_memory_high_watermark", "0.00000001")
    await asyncio.sleep(2)
    await asyncio.to_thread(soak.node.ctl, "set_vm_memory_high_watermark", "0.4")


ON_RABBITMQ: Sequence[Fault] = (
    kill_worker,
    freeze_worker,
    cut_link,
    silence_link,
    close_connections,
    restart_broker,
    kill_broker,
    alarm_broker,
)
ON_SQLITE: Sequence[Fault] = (kill_worker,)
