"""Code that the contenders share: the events, the clock, and the loops that fire events.

Needs nothing but Python, for each contender has an environment of its own. A contender is started
as ``python CONTENDER.py MEASUREMENT OPTIONS``, with `Options` as JSON, and prints its result so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

SERVICE, API, EVENT, LISTENER = "bench", "auth", "user_created", "welcome"

# Seconds. A stuck measurement ends with an error.
PATIENCE = 900.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        url: The broker, or the file of SQLite; empty for the memory transport.
        transport: Of this bus: ``rabbitmq``, ``sqlite`` or ``memory``.
        count: How many events the clock runs for.
        warm_up: How many events come before.
        in_flight: How many events wait for their confirm at once.
        threads: How many threads fire, each one event after the other.
        body: The size of an event's JSON, in bytes, about.
        prefetch: How many events a listener holds ahead.
        rate: Events a second, at even distances; 0 is as fast as it goes.
        handler: ``async``, ``sync`` or ``typed``.
        is_filled: Whether the events to handle are there already.
        backlog: How many more events wait behind those that are handled.
        listeners: How many listeners there are, each of which handles each event.
        apis: How many APIs there are; events are fired on each in turn.
        counts_allocations: Whether allocations are counted, which slows all else down.
    """

    url: str = ""
    transport: str = "rabbitmq"
    count: int = 1000
    warm_up: int = 100
    in_flight: int = 200
    threads: int = 1
    body: int = 100
    prefetch: int = 50
    rate: float = 0
    handler: str = "async"
    is_filled: bool = False
    backlog: int = 0
    listeners: int = 1
    apis: int = 1
    counts_allocations: bool = False

    @property
    def events(self) -> int:
        """The total number of events."""
        return self.warm_up + self.count


Result = dict[str, Any]
Fire = Callable[[int], Awaitable[Any]]


def fields(number: int, body: int) -> dict[str, Any]:
    """Return the fields of an event, of about `body` bytes as JSON."""
    event = {"number": number, "username": "adam", "email": "adam@example.com", "text": ""}
    event["text"] = "x" * (body - len(json.dumps(event)))
    return event


class Clock:
    """Measures from the event after the warm-up to the last one.

    Its methods may be called from any thread.
    """

    def __init__(self, options: Options) -> None:
        self.began: Future[None] = Future()
        self.ended: Future[Result] = Future()
        self._options = options
        self._numbers = itertools.count(1)
        self._planned: dict[int, float] = {}
        self._latencies: list[float] = []
        self._began_at = self._cpu_before = 0.0
        if not options.warm_up:
            self._begin()

    def plan(self, number: int, planned_at: float) -> None:
        """Record the scheduled time of an event, to compute its latency."""
        self._planned[number] = planned_at

    def note(self, number: int = -1) -> None:
        """Record that an event was fired or handled, depending on the measurement."""
        if self._planned:
            self._latencies.append(time.perf_counter() - self._planned.pop(number))
        nth = next(self._numbers)
        if nth == self._options.warm_up:
            self._begin()
        elif nth == self._options.events:
            self.ended.set_result(self._result())

    def _begin(self) -> None:
        self._began_at, self._cpu_before = time.perf_counter(), time.process_time()
        self.began.set_result(None)

    def _result(self) -> Result:
        seconds = time.perf_counter() - self._began_at
        return {
            "events": self._options.count,
            "seconds": seconds,
            "cpu_seconds": time.process_time() - self._cpu_before,
            "peak_memory": _peak_memory(),
            **_percentiles(self._latencies),
        }

    async def result(self) -> Result:
        """Wait for the end of the measurement, and return the result."""
        async with asyncio.timeout(PATIENCE):
            return await asyncio.wrap_future(self.ended)


def _peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    # getrusage() also counts the memory of the parent at the fork.
    with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123
        (kibibytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kibibytes) * 1024


def _percentiles(latencies: list[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    return {
        name: ordered[min(int(part * len(ordered)), len(ordered) - 1)]
        for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        if ordered
    }


async def fire_all(
    fire: Fire, options: Options, clock: Clock | None = None, *, only: range | None = None
) -> None:
    """Fire all events, `in_flight` at a time; record each confirm in `clock`."""
    numbers = iter(range(options.events) if only is None else only)

    async def fire_some() -> None:
        for number in numbers:
            await fire(number)
            if clock is not None:
                clock.note()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(options.in_flight):
            tasks.create_task(fire_some())


async def fire_paced(fire: Fire, options: Options, clock: Clock) -> None:
    """Fire each event after the warm-up at its scheduled time, even if others are still in flight.

    A latency counts from that time, so that a contender which fires late does not look the better
    for it.
    """
    began_at = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(options.warm_up, options.events):
            planned_at = began_at + (number - options.warm_up) / options.rate
            await asyncio.sleep(max(planned_at - time.perf_counter(), 0))
            clock.plan(number, planned_at)
            tasks.create_task(_awaited(fire(number)))


async def _awaited(awaitable: Awaitable[Any]) -> None:
    await awaitable


async def fire_for_handlers(fire: Fire, options: Options, clock: Clock) -> Result:
    """Fire all events while handlers record them in `clock`; return the result."""
    await fire_all(fire, options, only=range(options.warm_up))
    # Otherwise handlers would still be busy with the warm-up when the clock starts.
    await asyncio.wrap_future(clock.began)
    if options.rate:
        await fire_paced(fire, options, clock)
    else:
        await fire_all(fire, options, only=range(options.warm_up, options.events))
    return await clock.result()


def fire_from_threads(fire: Callable[[int], Any], options: Options) -> Result:
    """Fire all events from `threads` threads, and return the result."""
    clock = Clock(options)
    numbers = itertools.count()

    def fire_some() -> None:
        while (number := next(numbers)) < options.events:
            fire(number)
            clock.note()

    threads = [threading.Thread(target=fire_some, daemon=True) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    return clock.ended.result(PATIENCE)


def counting_allocations(measure: Callable[[], Result]) -> Result:
    """Run a measurement, and add the allocations of Python and its extensions to the result."""
    memray = importlib.import_module("memray")
    file = Path("allocations.bin")
    with memray.Tracker(file, trace_python_allocators=True):
        result = measure()
    return {**result, "allocations": memray.FileReader(file).metadata.total_allocations}


def main(measurements: Mapping[str, Callable[[Options], Any]]) -> None:
    """Run the measurement that the command line names, and print the result."""
    name, given = sys.argv[1:]
    options = Options(**json.loads(given))

    def measure() -> Result:
        result = measurements[name](options)
        found: Result = asyncio.run(result) if inspect.iscoroutine(result) else result
        return found

    result = counting_allocations(measure) if options.counts_allocations else measure()
    print(json.dumps(result), flush=True)
    # Skip the shutdown of the contender, which is not measured and can take seconds.
    os._exit(0)
