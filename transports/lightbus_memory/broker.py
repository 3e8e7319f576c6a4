"""`Broker`: the queues and dead letters that all buses of a process share."""

from __future__ import annotations

import itertools
import os
import threading

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import QueueAddress, Subscription
from lightbus_memory.queue import Entry, Queue
from lightbus_memory.tail import TailedEvents

QueueKey = tuple[str, str, str]


class MemoryDeadLetter(DeadLetter):
    """A dead letter in memory."""

    def __init__(self, broker: Broker, message: EventMessage, failure: Failure) -> None:
        self.message = message
        self.failure = failure
        self._broker = broker

    async def discard(self) -> None:
        self._broker.discard(self)


class Broker:
    """Queues, dead letters and tails. It is thread-safe.

    Attributes:
        pid: The id of the process that created it. A forked child has only a copy.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._queues: dict[QueueKey, Queue] = {}
        self._dead_letters: dict[str, list[MemoryDeadLetter]] = {}
        self._tails: list[tuple[str, TailedEvents]] = []
        self._positions = itertools.count()

    def declare(self, subscription: Subscription) -> Queue:
        """Return the queue of a subscription; create it if it does not exist."""
        with self._lock:
            queue = self._queues.setdefault(_key(subscription), Queue())
            queue.events |= subscription.events
            return queue

    def find_queue(self, address: QueueAddress) -> Queue | None:
        """Return the queue at `address`; None if it does not exist."""
        return self._queues.get(_key(address))

    def queues_of(self, service_name: str) -> list[tuple[QueueKey, Queue]]:
        """Return the queues of a service and their keys, sorted by key."""
        with self._lock:
            return [
                (key, self._queues[key]) for key in sorted(self._queues) if key[0] == service_name
            ]

    def remove_queue(self, address: QueueAddress) -> None:
        """Remove the queue at `address`."""
        with self._lock:
            del self._queues[_key(address)]

    def send(self, message: EventMessage) -> bool:
        """Add an event to each queue that is declared for it; return whether there is one."""
        with self._lock:
            queues = [
                queue
                for (_, _, api_name), queue in self._queues.items()
                if api_name == message.api_name and message.event_name in queue.events
            ]
            for queue in queues:
                queue.put(Entry(next(self._positions), message))
            for api_name, tail in self._tails:
                if api_name == message.api_name:
                    tail.append(message)
            return bool(queues)

    def next_position(self) -> int:
        """Return a position behind all others."""
        return next(self._positions)

    @property
    def is_tailed(self) -> bool:
        """Whether a tail is open."""
        return bool(self._tails)

    def add_tail(self, api_name: str, tail: TailedEvents) -> None:
        """Add each event of an API to `tail` from now on."""
        with self._lock:
            self._tails = [*self._tails, (api_name, tail)]

    def remove_tail(self, tail: TailedEvents) -> None:
        """Add no more events to `tail`."""
        with self._lock:
            self._tails = [entry for entry in self._tails if entry[1] is not tail]

    def add_dead_letter(self, service_name: str, message: EventMessage, failure: Failure) -> None:
        """Add a dead letter of a service."""
        with self._lock:
            letters = self._dead_letters.setdefault(service_name, [])
            letters.append(MemoryDeadLetter(self, message, failure))

    def dead_letters(self, service_name: str) -> list[MemoryDeadLetter]:
        """Return the dead letters of a service, oldest first."""
        with self._lock:
            return list(self._dead_letters.get(service_name, []))

    def discard(self, letter: MemoryDeadLetter) -> None:
        """Remove a dead letter, unless it was removed before."""
        with self._lock:
            for letters in self._dead_letters.values():
                if letter in letters:
                    letters.remove(letter)


def _key(address: QueueAddress) -> QueueKey:
    return address.service_name, address.listener_name, address.api_name


_brokers: dict[str, Broker] = {}
_brokers_lock = threading.Lock()


def get_broker(name: str) -> Broker:
    """Return the broker of that name in this process; create it if it does not exist."""
    with _brokers_lock:
        return _brokers.setdefault(name, Broker())
