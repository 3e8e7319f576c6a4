"""`Queue`: the events of one listener, shared by all threads and event loops of the process."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import threading
import time
from collections import deque
from datetime import datetime

import attrs

from lightbus.message import EventMessage
from lightbus.transport.records import SubscriptionStats


@attrs.define(eq=False)
class Entry:
    """One event in one queue.

    Attributes:
        position: Its place among the events of the queue; lower is earlier.
        message: The event.
        attempt: The number of its next attempt.
        redeliveries: How often it returned to the queue unsettled.
        first_failed_at: When it was first retried with a delay, in UTC; None if it was not.
    """

    position: int
    message: EventMessage
    attempt: int = 1
    redeliveries: int = 0
    first_failed_at: datetime | None = None


class Queue:
    """Entries in the order of their positions, and delayed entries. It is thread-safe."""

    def __init__(self) -> None:
        self.events: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, Entry]] = []
        self._delayed: list[tuple[float, int, Entry]] = []
        self._in_flight = 0
        self._consumers: deque[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = deque()

    def put(self, entry: Entry, *, delay: float = 0) -> None:
        """Add an entry, which is ready in `delay` seconds."""
        with self._lock:
            if delay > 0:
                heapq.heappush(self._delayed, (time.monotonic() + delay, entry.position, entry))
            else:
                heapq.heappush(self._waiting, (entry.position, entry))
            self._wake_consumers()

    def get(self) -> Entry | None:
        """Remove the first entry that is ready, and return it; None if there is none.

        It is in flight until `settle` is called.
        """
        with self._lock:
            now = time.monotonic()
            while self._delayed and self._delayed[0][0] <= now:
                _, position, entry = heapq.heappop(self._delayed)
                heapq.heappush(self._waiting, (position, entry))
            if not self._waiting:
                return None
            self._in_flight += 1
            return heapq.heappop(self._waiting)[1]

    def settle(self) -> None:
        """Record that an entry in flight was settled."""
        with self._lock:
            self._in_flight -= 1

    def stats(self) -> SubscriptionStats:
        """Count the entries."""
        with self._lock:
            return SubscriptionStats(
                waiting=len(self._waiting), delayed=len(self._delayed), in_flight=self._in_flight
            )

    @property
    def is_in_use(self) -> bool:
        """Whether a stream consumes from the queue, or entries are in flight."""
        with self._lock:
            return bool(self._consumers or self._in_flight)

    def next_delay(self) -> float | None:
        """Return in how many seconds the first delayed entry is ready; None if none is delayed."""
        with self._lock:
            return max(self._delayed[0][0] - time.monotonic(), 0) if self._delayed else None

    def add_consumer(self, wake: asyncio.Event) -> None:
        """Set `wake`, an event of the running loop, after each `put`."""
        with self._lock:
            self._consumers.append((asyncio.get_running_loop(), wake))

    def remove_consumer(self, wake: asyncio.Event) -> None:
        """Stop setting `wake`."""
        with self._lock:
            self._consumers = deque(one for one in self._consumers if one[1] is not wake)

    def _wake_consumers(self) -> None:
        running_loop = _running_loop()
        for loop, wake in self._consumers:
            if loop is running_loop:
                wake.set()
                continue
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake.set)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
