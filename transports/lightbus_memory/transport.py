"""`MemoryTransport`: the transport contract over the in-process broker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import msgspec

from lightbus.exceptions import (
    ListenerInUse,
    ListenerQueueNotEmpty,
    NotDeclared,
    SendRefused,
    TransportClosed,
    TransportRefused,
)
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, DeliveryStream, EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import Capability, start_generator
from lightbus.transport.records import ListenerQueue, Subscription, SubscriptionStats
from lightbus_memory.broker import Broker, Entry, MemoryDeadLetter, Queue, Tail, broker_named

_log = get_logger(__name__)


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration may say below ``memory:``.

    Attributes:
        name: Buses of one process that give the same name meet.
    """

    name: str = "default"

    def __str__(self) -> str:
        return f"this process's memory, named {self.name!r}"


class MemoryTransport(EventTransport):
    """Keeps events in the memory of this process: they end with it, and never leave it."""

    Settings: ClassVar[type[Any]] = MemorySettings
    lacking: ClassVar[Mapping[Capability, str]] = {
        Capability.SHARED: "The memory transport keeps events in the memory of one process."
    }

    def __init__(self, settings: MemorySettings, *, client_name: str) -> None:
        self._broker = broker_named(settings.name)
        self._streams: list[MemoryStream] = []
        self._tails: set[Tail] = set()
        self._is_closed = False

    async def open(self, *, timeout: float) -> None:
        self._check_open()
        if self._broker.pid != os.getpid():
            raise TransportRefused(
                f"{self.lacking[Capability.SHARED]} A process that was forked from it cannot "
                "share them: use the SQLite transport."
            )

    async def send(
        self, message: EventMessage, *, timeout: float, require_listeners: bool = False
    ) -> None:
        self._check_open()
        if not self._broker.send(message) and require_listeners:
            raise SendRefused(message.id, "no listener wants it")

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        self._check_open()
        self._broker.declare(subscription)

    async def subscribe(self, subscription: Subscription) -> MemoryStream:
        self._check_open()
        stream = MemoryStream(self._broker, self._broker.declare(subscription), subscription)
        self._streams = [*(open_ for open_ in self._streams if not open_.is_closed), stream]
        return stream

    async def put(
        self, subscription: Subscription, message: EventMessage, *, attempt: int, timeout: float
    ) -> None:
        self._check_open()
        entry = Entry(self._broker.next_position(), message, attempt=attempt)
        self._broker.declare(subscription).put(entry)

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        self._check_open()
        return await start_generator(self._tailed(api_name))

    async def _tailed(self, api_name: str) -> AsyncGenerator[EventMessage | None]:
        tail = Tail()
        self._tails.add(tail)
        try:
            with self._broker.tailed(api_name, tail):
                yield None
                while (message := await tail.next()) is not None:
                    yield message
            self._check_open()
        finally:
            self._tails.discard(tail)

    async def stats(self, subscription: Subscription) -> SubscriptionStats:
        self._check_open()
        return self._broker.declare(subscription).stats()

    async def listener_queues(self, service_name: str) -> list[ListenerQueue]:
        self._check_open()
        return [
            ListenerQueue(listener_name=listener, api_name=api, events=_events_in(queue))
            for (_, listener, api), queue in self._broker.queues_of(service_name).items()
        ]

    async def remove_listener_queue(
        self, service_name: str, listener_name: str, api_name: str, *, discard: bool = False
    ) -> int:
        self._check_open()
        name = (service_name, listener_name, api_name)
        queue = self._broker.queues_of(service_name).get(name)
        if queue is None:
            raise NotDeclared(f"There is no queue of listener {listener_name!r} on {api_name}.")
        if queue.is_in_use:
            raise ListenerInUse(listener_name, api_name, "a worker uses it. Stop the worker first")
        events = _events_in(queue)
        if events and not discard:
            raise ListenerQueueNotEmpty(listener_name, api_name, events)
        self._broker.remove(name)
        return events

    async def dead_letters(self, service_name: str) -> AsyncGenerator[MemoryDeadLetter]:
        self._check_open()
        for letter in self._broker.dead_letters(service_name):
            yield letter

    async def bury(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        self._check_open()
        self._broker.bury(service_name, message, failure)

    async def problems(self, *, timeout: float) -> list[str]:
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


def _events_in(queue: Queue) -> int:
    stats = queue.stats()
    return stats.waiting + (stats.delayed or 0) + (stats.taken or 0)


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
        self.returns = entry.returns
        self.first_failed_at = entry.first_failed_at
        self._stream = stream
        self._entry = entry
        self._is_settled = False

    async def ack(self) -> None:
        self._settle()

    async def requeue(self) -> None:
        if self._settle():
            self._stream.queue.put(self._entry)

    async def retry(self, *, after: float) -> None:
        if after == 0:
            self.take_back()
        else:
            failed_at = self.first_failed_at or datetime.now(UTC)
            self._put_behind(attempt=self.attempt + 1, after=after, first_failed_at=failed_at)

    async def defer(self, *, after: float) -> None:
        self._put_behind(attempt=self.attempt, after=after, first_failed_at=self.first_failed_at)

    async def dead_letter(self, failure: Failure) -> None:
        if self._settle():
            service_name = self._stream.subscription.service_name
            self._stream.broker.bury(service_name, self.message, failure)

    def take_back(self) -> None:
        """Return the entry to its old place, counted as an attempt."""
        if self._settle():
            self._entry.attempt += 1
            self._entry.returns += 1
            self._stream.queue.put(self._entry)

    def _put_behind(self, *, attempt: int, after: float, first_failed_at: datetime | None) -> None:
        if after not in self._stream.subscription.delays:
            raise ValueError(f"{after} s is not one of the delays that the subscription names")
        if self._settle():
            position = self._stream.broker.next_position()
            entry = Entry(position, self.message, attempt=attempt, first_failed_at=first_failed_at)
            self._stream.queue.put(entry, after=after)

    def _settle(self) -> bool:
        if self._is_settled:
            _log.debug("A delivery was settled before.", event_id=self.message.id)
            return False
        self._is_settled = True
        self._stream.settled(self)
        return True
