"""`MemoryTransport`: the transport contract and its features over a broker in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec

from lightbus.exceptions import (
    NotDeclared,
    QueueInUse,
    SendRefused,
    TransportClosed,
    TransportRefused,
)
from lightbus.message import EventMessage
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    DeadLetterStore,
    HealthCheck,
    ListenerQueues,
    QueueStats,
    Tail,
)
from lightbus.transport.kit import OpenStreams, start_generator
from lightbus.transport.records import ListenerQueue, QueueAddress, Subscription, SubscriptionStats
from lightbus_memory.broker import MemoryDeadLetter, get_broker
from lightbus_memory.queue import Entry, Queue
from lightbus_memory.stream import MemoryStream
from lightbus_memory.tail import TailedEvents


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration below ``memory:``.

    Attributes:
        name: Buses of one process that use the same name share their events.
    """

    name: str = "default"

    def __str__(self) -> str:
        return f"this process's memory, named {self.name!r}"


class MemoryTransport(
    EventTransport, DeadLetterStore, HealthCheck, ListenerQueues, QueueStats, Tail
):
    """Stores events in the memory of this process. They are lost when it ends."""

    Settings: ClassVar[type[Any]] = MemorySettings

    def __init__(self, settings: MemorySettings, *, client_name: str) -> None:
        self._broker = get_broker(settings.name)
        self._streams: OpenStreams[MemoryStream] = OpenStreams()
        self._tails: set[TailedEvents] = set()
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        self._check_open()
        if self._broker.pid != os.getpid():
            raise TransportRefused(
                "The memory transport keeps events in the memory of one process. A process that "
                "was forked from it cannot share them. Use the SQLite transport."
            )

    async def close(self) -> None:
        self._is_closed = True
        await self._streams.close()
        for tail in list(self._tails):
            tail.close()

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        self._check_open()
        self._broker.declare(subscription)

    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        self._check_open()
        if to is not None:
            entry = Entry(self._broker.next_position(), message, attempt=attempt)
            self._queue(to).put(entry)
        elif not self._broker.send(message) and require_listeners:
            raise SendRefused(message.id, "no listener receives it")

    async def subscribe(self, subscription: Subscription) -> MemoryStream:
        self._check_open()
        queue = self._broker.declare(subscription)
        return self._streams.add(MemoryStream(self._broker, queue, subscription))

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        self._check_open()
        return self._queue(queue).stats()

    async def listener_queues(self, service_name: str) -> list[ListenerQueue]:
        self._check_open()
        return [
            ListenerQueue(listener_name=listener, api_name=api, events=queue.stats().total)
            for (_, listener, api), queue in self._broker.queues_of(service_name)
        ]

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        self._check_open()
        found = self._queue(queue)
        if found.is_in_use:
            raise QueueInUse(queue.owner, "a worker uses it. Stop the worker first")
        events = found.stats().total
        if events and not discard:
            raise QueueInUse(queue.owner, events=events)
        self._broker.remove_queue(queue)
        return events

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        self._check_open()
        return await start_generator(self._read_tail(api_name))

    async def _read_tail(self, api_name: str) -> AsyncGenerator[EventMessage | None]:
        tail = TailedEvents()
        self._tails.add(tail)
        self._broker.add_tail(api_name, tail)
        try:
            yield None
            while (message := await tail.next()) is not None:
                yield message
            self._check_open()
        finally:
            self._broker.remove_tail(tail)
            self._tails.discard(tail)

    async def dead_letters(self, service_name: str) -> AsyncGenerator[MemoryDeadLetter]:
        self._check_open()
        for letter in self._broker.dead_letters(service_name):
            yield letter

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        self._check_open()
        self._broker.add_dead_letter(service_name, message, failure)

    async def check_health(self, *, timeout: float) -> list[str]:
        return ["The memory transport was closed."] if self._is_closed else []

    def _queue(self, address: QueueAddress) -> Queue:
        queue = self._broker.find_queue(address)
        if queue is None:
            raise NotDeclared(
                f"Listener {address.listener_name!r} of service {address.service_name!r} has no "
                f"queue for events of {address.api_name} in this process: declare it first."
            )
        return queue

    def _check_open(self) -> None:
        if self._is_closed:
            raise TransportClosed("The memory transport was closed.")
