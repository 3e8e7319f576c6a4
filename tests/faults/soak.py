"""`Soak`: services that fire and handle, in processes of their own, while faults are made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

import lightbus
from faults.checker import Disruption, Ledger, Result
from faults.journal import NAME_VARIABLE, Reader
from lightbus.exceptions import TransportError
from lightbus.operations.dead_letters import DeadLetters, Filter
from rabbitmq_cluster import RabbitMQCluster
from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER, RabbitMQNode
from tcp_proxy import TcpProxy

WORKERS = 4
PRODUCERS = 2

# Those of the listeners of a run
QUEUES = ("lightbus:soak:soak:soak", "lightbus:soak:doomed:soak")

# How long nothing may be handled, in seconds, before what is missing counts as lost.
PATIENCE = 90.0

# For how long faults are still made when all is fired and not all is handled, in seconds.
MORE_FAULTS = 30.0

# How many duplicates that no fault explains are told in full.
MOST_TOLD = 3

# How far, in seconds, the wall clocks of processes are apart at most.
CLOCK_SKEW = 86_400

# Debian's package libfaketime. It also needs a little shared memory for each process.
CLOCK_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
SHARED_MEMORY = Path("/dev/shm")

T = TypeVar("T")

Fault = Callable[["Soak"], Coroutine[Any, Any, None]]


@attrs.frozen(kw_only=True)
class Plan:
    """What a run is to do.

    Attributes:
        events: How many events are fired.
        rate: How many a second; 0 is for as many as can be.
        faults: What happens meanwhile, one at a time.
        every: How often, in seconds, more or less.
        seed: Decides which and when.
        skews_clocks: Whether each process is given a wall clock that is wrong.
    """

    events: int
    rate: float
    faults: Sequence[Fault]
    every: float
    seed: int
    skews_clocks: bool


class Service:
    """One process of a run."""

    def __init__(self, folder: Path, name: str, arguments: Sequence[str], *, skew: int) -> None:
        self.name = name
        tests = Path(__file__).parent.parent
        clock = {}
        if skew:
            clock = {
                "LD_PRELOAD": str(CLOCK_LIBRARY),
                "FAKETIME": f"{skew:+d}s",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tests), NAME_VARIABLE: name, **clock},
        )

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()
        for left in SHARED_MEMORY.glob(f"*faketime*_{self.process.pid}"):
            left.unlink(missing_ok=True)


class Soak:
    """One run.

    Args:
        folder: Where its processes keep what they need.
        transport: What the configuration says below ``event_transport``.
        plan: What it is to do.
        node: The RabbitMQ behind the transport, for faults that concern it.
        proxy: The way to it, likewise.
        cluster: The nodes behind the transport, where they are several.

    Attributes:
        made: How often each fault was made.
    """

    def __init__(
        self,
        folder: Path,
        transport: dict[str, Any],
        plan: Plan,
        *,
        node: RabbitMQNode | None = None,
        proxy: TcpProxy | None = None,
        cluster: RabbitMQCluster | None = None,
    ) -> None:
        self.made: Counter[str] = Counter()
        self._folder = folder
        self._plan = plan
        self._node = node
        self._proxy = proxy
        self._cluster = cluster
        self._random = random.Random(plan.seed)
        self._workers: list[Service] = []
        self._producers: list[Service] = []
        self._started = 0
        self._to_fire: dict[str, int] = {}
        self._begun: Counter[str] = Counter()
        self._reader = Reader(folder)
        self._ledger = Ledger()
        self._disruptions: list[Disruption] = []
        default = {
            "event_transport": transport,
            # An event that was with two workers when they were lost waits for so long.
            "acknowledgement_timeout": 5,
            "max_attempts": 1000,
            "retry": {"first": 0.2, "longest": 2},
        }
        self._config = {"service_name": "soak", "apis": {"default": default}}

    @property
    def node(self) -> RabbitMQNode:
        assert self._node is not None
        return self._node

    @property
    def proxy(self) -> TcpProxy:
        assert self._proxy is not None
        return self._proxy

    @property
    def cluster(self) -> RabbitMQCluster:
        assert self._cluster is not None
        return self._cluster

    async def run(self) -> Result:
        """Fire, handle and make faults, until every event was handled or is a dead letter."""
        (self._folder / "lightbus.json").write_text(json.dumps(self._config))
        try:
            self._workers = [self._start_worker() for _ in range(WORKERS)]
            each = self._plan.events // PRODUCERS
            counts = [each] * (PRODUCERS - 1) + [self._plan.events - each * (PRODUCERS - 1)]
            self._producers = [self._start_producer(count) for count in counts]
            async with self._making_faults():
                await self._until_fired()
                await self._until_settled(at_most=MORE_FAULTS)
            dead = await self._until_settled()
        finally:
            for service in [*self._producers, *self._workers]:
                service.process.send_signal(signal.SIGTERM)
            for service in [*self._producers, *self._workers]:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(service.process.wait, PATIENCE)
                service.kill()
        self._read()
        for first, second in self._ledger.unexplained(self._disruptions)[:MOST_TOLD]:
            print(f"unexplained: {second} after {first}; faults: {self._disruptions}")
        return self._ledger.result(dead=dead, disruptions=self._disruptions)

    # What faults use

    def any_worker(self) -> Service:
        """Return one of the workers."""
        return self.choose(self._workers)

    def choose(self, things: Sequence[T]) -> T:
        """Return one of them, as the seed decides."""
        return self._random.choice(things)

    def replace_worker(self) -> None:
        """Kill a worker and start another."""
        # One is never killed, so that there is progress.
        place = self._random.randrange(1, WORKERS)
        killed = self._workers[place]
        with self.disrupting("kill_worker", killed.name):
            killed.kill()
        self._workers[place] = self._start_worker()

    def replace_producer(self) -> None:
        """Kill a process that fires, and have another one fire the rest."""
        place = self._random.randrange(PRODUCERS)
        killed = self._producers[place]
        killed.kill()
        self._read()
        rest = self._to_fire[killed.name] - self._begun[killed.name]
        self._producers[place] = self._start_producer(rest)

    @contextlib.asynccontextmanager
    async def everything_settled(self) -> AsyncIterator[bool]:
        """Have nothing fired while the block runs; give whether all that was fired is settled."""
        self._signal_producers(signal.SIGUSR1)
        try:
            yield not self._ledger.missing(await self._until_settled(at_most=30))
        finally:
            self._signal_producers(signal.SIGUSR2)

    @contextlib.contextmanager
    def disrupting(self, fault: str, process: str | None = None) -> Iterator[None]:
        """Note that `fault` is made while the block runs, to one process or to all."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._disruptions.append(Disruption(fault, start, time.monotonic(), process))

    # How it is run

    def _start_worker(self) -> Service:
        return self._start(
            "worker", ["lightbus.cli", "run", "-b", "faults.service", "--log-level", "critical"]
        )

    def _start_producer(self, count: int) -> Service:
        rate = self._plan.rate / PRODUCERS
        service = self._start("producer", ["faults.producer", str(count), str(rate)])
        self._to_fire[service.name] = count
        return service

    def _start(self, role: str, arguments: Sequence[str]) -> Service:
        self._started += 1
        skew = 0
        if self._plan.skews_clocks:
            skew = self._random.randint(-CLOCK_SKEW, CLOCK_SKEW)
        return Service(self._folder, f"{role}-{self._started}", arguments, skew=skew)

    def _signal_producers(self, number: signal.Signals) -> None:
        for producer in self._producers:
            if not producer.has_ended:
                producer.process.send_signal(number)

    @contextlib.asynccontextmanager
    async def _making_faults(self) -> AsyncIterator[None]:
        making = asyncio.create_task(self._make_faults())
        try:
            yield
        finally:
            making.cancel()
            await asyncio.wait({making})
        if not making.cancelled():
            making.result()

    async def _make_faults(self) -> None:
        if self._node is not None:
            for queue in QUEUES:
                await asyncio.to_thread(self._node.wait_for_consumers, "/", queue)
            await asyncio.sleep(NEW_QUEUES_ARE_SAVED_AFTER)
        for fault in self._next_faults():
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._plan.every)
            self.made[fault.__name__] += 1
            making = asyncio.create_task(fault(self))
            try:
                await asyncio.shield(making)
            except asyncio.CancelledError:
                # What a fault has broken, it also mends.
                await asyncio.wait({making})
                raise

    def _next_faults(self) -> Iterator[Fault]:
        """Yield faults for ever, in random order, and each as often as the others."""
        while self._plan.faults:
            yield from self._random.sample(self._plan.faults, len(self._plan.faults))

    async def _until_fired(self) -> None:
        while not all(producer.has_ended for producer in self._producers):
            self._read()
            await asyncio.sleep(0.5)
        failed = [producer for producer in self._producers if producer.process.returncode]
        if failed:
            raise AssertionError(f"{failed[0].name} ended with {failed[0].process.returncode}")

    async def _until_settled(self, *, at_most: float = float("inf")) -> set[str]:
        """Wait until nothing is missing, or does not get less; return the ids of dead letters."""
        missing, started = -1, time.monotonic()
        last_news = started
        dead: set[str] = set()
        while True:
            self._read()
            if 0 < len(self._ledger.missing(dead)) < self._plan.events / 100:
                dead = await self._dead() or dead
            found = len(self._ledger.missing(dead))
            now = time.monotonic()
            if found != missing:
                missing, last_news = found, now
            if not missing or now - last_news > PATIENCE or now - started > at_most:
                return dead
            await asyncio.sleep(0.5)

    async def _dead(self) -> set[str]:
        """Return the ids of the dead letters; none where the broker does not answer."""
        client = lightbus.create(self._config).client
        try:
            letters = DeadLetters(client).matching(Filter())
            async with contextlib.aclosing(letters):
                return {letter.message.id async for letter in letters}
        except TransportError:
            return set()
        finally:
            await client.close_async()

    def _read(self) -> None:
        news = list(self._reader.news())
        self._begun.update(entry.process for entry in news if entry.what == "firing")
        self._ledger.add(news)
