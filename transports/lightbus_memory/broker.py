"""The broker: queues that every event loop and thread of a process shares."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime

import attrs

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import QueueAddress, Subscription, SubscriptionStats

QueueName = tuple[str, str, str]

# How many events are held for one who looks at them too slowly: the oldest are left out then.
_MOST_TAILED = 1000


def queue_name(address: QueueAddress) -> QueueName:
    """Return the key of the queue at `address`."""
    return address.service_name, address.listener_name, address.api_name


@attrs.define(eq=False)
class Entry:
    """One event in one queue.

    Attributes:
        position: Where it stands among the queue's events.
        message: The event.
        attempt: The attempt that its next delivery is.
        redeliveries: How often it returned unsettled.
        first_failed_at: When it was first to be tried again.
    """

    position: int
    message: EventMessage
    attempt: int = 1
    redeliveries: int = 0
    first_failed_at: datetime | None = None


class Queue:
    """The events that wait for one listener, in order, and those that wait for their time."""

    def __init__(self) -> None:
        self.events: frozenset[str] = frozenset()
        self.lock = threading.Lock()
        self._waiting: list[tuple[int, Entry]] = []
        self._delayed: list[tuple[float, int, Entry]] = []
        self._taken = 0
        self._takers: deque[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = deque()

    def put(self, entry: Entry, *, after: float = 0) -> None:
        """Have `entry` wait, `after` seconds from now, behind those of a smaller position."""
        with self.lock:
            if after > 0:
                heapq.heappush(self._delayed, (time.monotonic() + after, entry.position, entry))
            else:
                heapq.heappush(self._waiting, (entry.position, entry))
            self._wake_takers()

    def take(self) -> Entry | None:
        """Return the first entry whose time has come, or None."""
        with self.lock:
            now = time.monotonic()
            while self._delayed and self._delayed[0][0] <= now:
                _, position, entry = heapq.heappop(self._delayed)
                heapq.heappush(self._waiting, (position, entry))
            if not self._waiting:
                return None
            self._taken += 1
            return heapq.heappop(self._waiting)[1]

    def settled(self) -> None:
        """Say that an entry which was taken was settled."""
        with self.lock:
            self._taken -= 1

    def stats(self) -> SubscriptionStats:
        """Count the entries."""
        with self.lock:
            return SubscriptionStats(
                waiting=len(self._waiting), delayed=len(self._delayed), in_flight=self._taken
            )

    @property
    def is_in_use(self) -> bool:
        """Whether a stream takes entries from it, or has one."""
        with self.lock:
            return bool(self._takers or self._taken)

    def next_delay(self) -> float | None:
        """Return how long the first delayed entry has to wait, in seconds; None without one."""
        with self.lock:
            return max(self._delayed[0][0] - time.monotonic(), 0) if self._delayed else None

    def add_taker(self, wake: asyncio.Event) -> None:
        """Set `wake`, which belongs to the running loop, whenever something was put."""
        with self.lock:
            self._takers.append((asyncio.get_running_loop(), wake))

    def remove_taker(self, wake: asyncio.Event) -> None:
        """End what `add_taker` began."""
        with self.lock:
            self._takers = deque(taker for taker in self._takers if taker[1] is not wake)

    def _wake_takers(self) -> None:
        here = _running_loop()
        for loop, wake in self._takers:
            if loop is here:
                wake.set()
                continue
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class MemoryDeadLetter(DeadLetter):
    """An event that was given up, and why."""

    def __init__(self, broker: Broker, message: EventMessage, failure: Failure) -> None:
        self.message = message
        self.failure = failure
        self._broker = broker

    async def discard(self) -> None:
        self._broker.discard(self)


class TailedEvents:
    """The last events of an API, for one who looks at them on the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[EventMessage] = deque(maxlen=_MOST_TAILED)
        self._has_news = asyncio.Event()
        self._is_told = False
        self.is_closed = False

    def put(self, message: EventMessage) -> None:
        """Add an event, from any thread."""
        self._events.append(message)
        # Once until it is heard, for a loop that is busy would be told without end.
        if not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._has_news.set)

    def close(self) -> None:
        """Have nobody wait any more."""
        self.is_closed = True
        self._has_news.set()

    async def next(self) -> EventMessage | None:
        """Wait for the next event; None where it was closed."""
        while not self._events and not self.is_closed:
            self._has_news.clear()
            self._is_told = False
            if not self._events:  # none came in between
                await self._has_news.wait()
        return self._events.popleft() if self._events else None


class Broker:
    """Named queues and dead letters. Every method may be called from any thread."""

    def __init__(self) -> None:
        # A forked child would have a copy of its own, in which nothing meets.
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._queues: dict[QueueName, Queue] = {}
        self._dead: dict[str, list[MemoryDeadLetter]] = {}
        self._tails: list[tuple[str, TailedEvents]] = []
        self._positions = itertools.count()

    def declare(self, subscription: Subscription) -> Queue:
        """Return the queue of `subscription`, made where it did not exist."""
        with self._lock:
            queue = self._queues.setdefault(queue_name(subscription), Queue())
            queue.events |= subscription.events
            return queue

    def queues_of(self, service_name: str) -> dict[QueueName, Queue]:
        """Return the queues of a service, sorted by name."""
        with self._lock:
            return {
                name: self._queues[name] for name in sorted(self._queues) if name[0] == service_name
            }

    def remove(self, name: QueueName) -> None:
        """Remove a queue."""
        with self._lock:
            del self._queues[name]

    def send(self, message: EventMessage) -> bool:
        """Put `message` into the queue of every subscription that wants it; return whether any
        does.
        """
        with self._lock:
            wanting = [
                queue
                for (_, _, api_name), queue in self._queues.items()
                if api_name == message.api_name and message.event_name in queue.events
            ]
            for queue in wanting:
                queue.put(Entry(next(self._positions), message))
            for api_name, tail in self._tails:
                if api_name == message.api_name:
                    tail.put(message)
            return bool(wanting)

    @contextlib.contextmanager
    def tailed(self, api_name: str, tail: TailedEvents) -> Iterator[None]:
        """Put every event of an API into `tail` while the block runs."""
        with self._lock:
            self._tails = [*self._tails, (api_name, tail)]
        try:
            yield
        finally:
            with self._lock:
                self._tails = [known for known in self._tails if known[1] is not tail]

    def next_position(self) -> int:
        """Return the position behind all that were given out."""
        return next(self._positions)

    def add_dead_letter(self, service_name: str, message: EventMessage, failure: Failure) -> None:
        """Keep a dead letter of a service."""
        with self._lock:
            letters = self._dead.setdefault(service_name, [])
            letters.append(MemoryDeadLetter(self, message, failure))

    def dead_letters(self, service_name: str) -> list[MemoryDeadLetter]:
        """Return the dead letters of a service, oldest first."""
        with self._lock:
            return list(self._dead.get(service_name, []))

    def discard(self, letter: MemoryDeadLetter) -> None:
        """Remove a dead letter, if it is there."""
        with self._lock:
            for letters in self._dead.values():
                if letter in letters:
                    letters.remove(letter)


_brokers: dict[str, Broker] = {}
_brokers_lock = threading.Lock()


def broker_named(name: str) -> Broker:
    """Return this process's broker of that name."""
    with _brokers_lock:
        return _brokers.setdefault(name, Broker())
