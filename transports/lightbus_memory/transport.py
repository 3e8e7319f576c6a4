"""`MemoryTransport`: the transport contract over the in-process broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import msgspec

from lightbus.exceptions import (
    NotDeclared,
    QueueInUse,
    SendRefused,
    TransportClosed,
    TransportRefused,
)
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    DeadLetterStore,
    HealthCheck,
    ListenerQueues,
    QueueStats,
    Tail,
)
from lightbus.transport.kit import check_delay, start_generator
from lightbus.transport.records import ListenerQueue, QueueAddress, Subscription, SubscriptionStats
from lightbus_memory.broker import (
    Broker,
    Entry,
    MemoryDeadLetter,
    Queue,
    TailedEvents,
    broker_named,
    queue_name,
)

_log = get_logger(__name__)


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say below ``memory:``.

    Attributes:
        name: Buses of one process that give the same name meet.
    """

    name: str = "default"

    def __str__(self) -> str:
        return f"this process's memory, named {self.name!r}"


class MemoryTransport(
    EventTransport, DeadLetterStore, HealthCheck, ListenerQueues, QueueStats, Tail
):
    """Keeps events in the memory of this process: they end with it, and never leave it."""

    Settings: ClassVar[type[Any]] = MemorySettings

    def __init__(self, settings: MemorySettings, *, client_name: str) -> None:
        self._broker = broker_named(settings.name)
        self._streams: list[MemoryStream] = []
        self._tails: set[TailedEvents] = set()
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        self._check_open()
        if self._broker.pid != os.getpid():
            raise TransportRefused(
                "The memory transport keeps events in the memory of one process. A process that "
                "was forked from it cannot share them. Use the SQLite transport."
            )

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
            raise SendRefused(message.id, "no listener wants it")

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        self._check_open()
        self._broker.declare(subscription)

    async def subscribe(self, subscription: Subscription) -> MemoryStream:
        self._check_open()
        stream = MemoryStream(self._broker, self._broker.declare(subscription), subscription)
        self._streams = [*(open_ for open_ in self._streams if not open_.is_closed), stream]
        return stream

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        self._check_open()
        return await start_generator(self._tailed(api_name))

    async def _tailed(self, api_name: str) -> AsyncGenerator[EventMessage | None]:
        tail = TailedEvents()
        self._tails.add(tail)
        try:
            with self._broker.tailed(api_name, tail):
                yield None
                while (message := await tail.next()) is not None:
                    yield message
            self._check_open()
        finally:
            self._tails.discard(tail)

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        self._check_open()
        return self._queue(queue).stats()

    async def listener_queues(self, service_name: str) -> list[ListenerQueue]:
        self._check_open()
        return [
            ListenerQueue(listener_name=listener, api_name=api, events=queue.stats().total)
            for (_, listener, api), queue in self._broker.queues_of(service_name).items()
        ]

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        self._check_open()
        found = self._queue(queue)
        owner = f"listener {queue.listener_name!r} on {queue.api_name}"
        if found.is_in_use:
            raise QueueInUse(owner, "a worker uses it. Stop the worker first")
        events = found.stats().total
        if events and not discard:
            raise QueueInUse(owner, events=events)
        self._broker.remove(queue_name(queue))
        return events

    async def dead_letters(self, service_name: str) -> AsyncGenerator[MemoryDeadLetter]:
        self._check_open()
        for letter in self._broker.dead_letters(service_name):
            yield letter

    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        self._check_open()
        self._broker.add_dead_letter(service_name, message, failure)

    def _queue(self, address: QueueAddress) -> Queue:
        queue = self._broker.queues_of(address.service_name).get(queue_name(address))
        if queue is None:
            raise NotDeclared(
                f"There is no queue of listener {address.listener_name!r} on {address.api_name}."
            )
        return queue

    async def check_health(self, *, timeout: float) -> list[str]:
        return ["The memory transport was closed."] if self._is_closed else []

    async def close(self) -> None:
        self._is_closed = True
        for stream in self._streams:
            await stream.aclose()
        self._streams.clear()
        for tail in list(self._tails):
            tail.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise TransportClosed("The memory transport was closed.")


class MemoryStream(DeliveryStream):
    """Takes entries from a queue when they are asked for, and holds none ahead."""

    def __init__(self, broker: Broker, queue: Queue, subscription: Subscription) -> None:
        self.subscription = subscription
        self.broker = broker
        self.queue = queue
        self._unsettled: set[MemoryDelivery] = set()
        self.is_closed = False
        self._is_stopped = False
        self._wake = asyncio.Event()
        queue.add_taker(self._wake)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MemoryDelivery:
        while not self._is_stopped:
            self._wake.clear()
            entry = self.queue.take()
            if entry is not None:
                delivery = MemoryDelivery(self, entry)
                self._unsettled.add(delivery)
                return delivery
            delay = self.queue.next_delay()
            if delay is None:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a delayed entry's time has come
        raise StopAsyncIteration

    async def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self.queue.remove_taker(self._wake)
            self._wake.set()

    async def aclose(self) -> None:
        await self.stop()
        self.is_closed = True
        for delivery in list(self._unsettled):
            delivery.take_back()

    def settled(self, delivery: MemoryDelivery) -> None:
        """Forget `delivery`."""
        self._unsettled.discard(delivery)
        self.queue.settled()


class MemoryDelivery(Delivery):
    """An entry that was taken from its queue."""

    def __init__(self, stream: MemoryStream, entry: Entry) -> None:
        self.message = entry.message
        self.attempt = entry.attempt
        self.redeliveries = entry.redeliveries
        self.first_failed_at = entry.first_failed_at
        self._stream = stream
        self._entry = entry
        self._is_settled = False

    async def ack(self) -> None:
        self._settle()

    async def requeue(self) -> None:
        if self._settle():
            self._stream.queue.put(self._entry)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            self.take_back()
        elif self._settle():
            failed_at = self.first_failed_at or datetime.now(UTC) if counts else None
            entry = Entry(
                self._stream.broker.next_position(),
                self.message,
                attempt=self.attempt + counts,
                first_failed_at=failed_at if counts else self.first_failed_at,
            )
            self._stream.queue.put(entry, after=after)

    async def dead_letter(self, failure: Failure) -> None:
        if self._settle():
            service_name = self._stream.subscription.service_name
            self._stream.broker.add_dead_letter(service_name, self.message, failure)

    def take_back(self) -> None:
        """Return the entry to its old place, counted as an attempt."""
        if self._settle():
            self._entry.attempt += 1
            self._entry.redeliveries += 1
            self._stream.queue.put(self._entry)

    def _settle(self) -> bool:
        if self._is_settled:
            _log.debug("A delivery was settled before.", event_id=self.message.id)
            return False
        self._is_settled = True
        self._stream.settled(self)
        return True
