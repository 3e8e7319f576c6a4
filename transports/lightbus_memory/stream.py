"""`MemoryStream` and `MemoryDelivery`: deliver the entries of a queue to a listener."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

from lightbus.transport.contract import DeliveryStream
from lightbus.transport.failure import Failure
from lightbus.transport.kit import SettleOnce, check_delay
from lightbus.transport.records import Subscription
from lightbus_memory.broker import Broker
from lightbus_memory.queue import Entry, Queue


class MemoryStream(DeliveryStream):
    """Gets an entry from a queue when a task asks for it, and prefetches none."""

    def __init__(self, broker: Broker, queue: Queue, subscription: Subscription) -> None:
        self.subscription = subscription
        self.broker = broker
        self.queue = queue
        self.unsettled: set[MemoryDelivery] = set()
        self.is_closed = False
        self._is_stopped = False
        self._wake = asyncio.Event()
        queue.add_consumer(self._wake)

    async def __anext__(self) -> MemoryDelivery:
        while not self._is_stopped:
            self._wake.clear()
            entry = self.queue.get()
            if entry is not None:
                delivery = MemoryDelivery(self, entry)
                self.unsettled.add(delivery)
                return delivery
            delay = self.queue.next_delay()
            if delay is None:
                await self._wake.wait()
                continue
            with contextlib.suppress(TimeoutError):  # the delayed entry is ready
                async with asyncio.timeout(delay):
                    await self._wake.wait()
        raise StopAsyncIteration

    async def stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self.queue.remove_consumer(self._wake)
            self._wake.set()

    async def aclose(self) -> None:
        await self.stop()
        self.is_closed = True
        for delivery in list(self.unsettled):
            delivery.redeliver()

    def forget(self, delivery: MemoryDelivery) -> None:
        """Record that `delivery` was settled."""
        self.unsettled.discard(delivery)
        self.queue.settle()


class MemoryDelivery(SettleOnce):
    """An entry that is in flight."""

    def __init__(self, stream: MemoryStream, entry: Entry) -> None:
        self.message = entry.message
        self.attempt = entry.attempt
        self.redeliveries = entry.redeliveries
        self.first_failed_at = entry.first_failed_at
        self._stream = stream
        self._entry = entry

    async def ack(self) -> None:
        self._settle()

    async def requeue(self) -> None:
        if self._settle():
            self._stream.queue.put(self._entry)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._stream.subscription, after, counts=counts)
        if after == 0:
            self.redeliver()
        elif self._settle():
            # A new position, so that the next attempt comes after the events sent meanwhile
            entry = Entry(
                self._stream.broker.next_position(),
                self.message,
                attempt=self.attempt + counts,
                first_failed_at=self.first_failed_at or (datetime.now(UTC) if counts else None),
            )
            self._stream.queue.put(entry, delay=after)

    async def dead_letter(self, failure: Failure) -> None:
        if self._settle():
            service_name = self._stream.subscription.service_name
            self._stream.broker.add_dead_letter(service_name, self.message, failure)

    def redeliver(self) -> None:
        """Return the entry to its place in the queue, and count an attempt."""
        if self._settle():
            self._entry.attempt += 1
            self._entry.redeliveries += 1
            self._stream.queue.put(self._entry)

    def _settle(self) -> bool:
        """Settle the delivery; return whether it was unsettled."""
        if not self.can_settle():
            return False
        self.is_settled = True
        self._stream.forget(self)
        return True
