"""Variants of the memory transport, each with one fault that would harm users."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any, ClassVar

import attrs

from lightbus.exceptions import QueueInUse
from lightbus.message import EventMessage
from lightbus.transport.contract import Delivery, EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import (
    AsyncAPISource,
    FindEvent,
    InexactAttempts,
    LastAttempt,
    ManagedTopology,
    SharedBroker,
)
from lightbus.transport.records import (
    AsyncAPIParts,
    BrokerObject,
    EventLocation,
    MigrationProgress,
    QueueAddress,
    Subscription,
    SubscriptionStats,
)
from lightbus_memory.broker import MemoryDeadLetter
from lightbus_memory.stream import MemoryDelivery, MemoryStream
from lightbus_memory.transport import MemoryTransport

# Transports


class DeliversToOneListenerOnly(MemoryTransport):
    """Listeners share events that each of them should receive."""

    async def subscribe(self, subscription: Subscription) -> MemoryStream:
        return await super().subscribe(attrs.evolve(subscription, listener_name="all"))


class ReturnsFromSendEarly(MemoryTransport):
    """A send returns at once, and its event is sent together with the next one."""

    late: EventMessage | None = None

    async def send(self, message: EventMessage, **options: Any) -> None:
        if self.late is not None:
            await super().send(self.late, **options)
        self.late = message


class DiscardsReadDeadLetters(MemoryTransport):
    """Reading a dead letter removes it."""

    async def dead_letters(self, service_name: str) -> AsyncGenerator[MemoryDeadLetter]:
        async for letter in super().dead_letters(service_name):
            yield letter
            await letter.discard()


class SharesDeadLettersAmongReaders(MemoryTransport):
    """A reader does not receive the dead letters that another reader holds."""

    _held: ClassVar[set[str]] = set()

    async def dead_letters(self, service_name: str) -> AsyncGenerator[MemoryDeadLetter]:
        mine: set[str] = set()
        try:
            async for letter in super().dead_letters(service_name):
                if letter.message.id not in self._held:
                    mine.add(letter.message.id)
                    self._held.add(letter.message.id)
                    yield letter
        finally:
            self._held.difference_update(mine)


class SendsWhenClosed(MemoryTransport):
    """A closed transport still sends."""

    async def close(self) -> None:
        await super().close()
        self._is_closed = False


class LosesEventsInAMigration(MemoryTransport, ManagedTopology):
    """A migration empties the queues."""

    async def topology(
        self, subscriptions: Collection[Subscription], events: Mapping[str, Collection[str]]
    ) -> list[BrokerObject]:
        return []

    async def migrate(
        self,
        subscriptions: Collection[Subscription],
        events: Mapping[str, Collection[str]],
        *,
        on_progress: Callable[[MigrationProgress], None],
    ) -> None:
        for subscription in subscriptions:
            stream = await self.subscribe(subscription)
            while stream.queue.get() is not None:
                stream.queue.settle()
            await stream.stop()


class ClaimsToBeShared(MemoryTransport, SharedBroker):
    """A broker in one process is listed as shared."""


class CountsOneEventTooMany(MemoryTransport):
    """The number of waiting events is too high by one."""

    async def stats(self, queue: QueueAddress) -> SubscriptionStats:
        stats = await super().stats(queue)
        return attrs.evolve(stats, waiting=(stats.waiting or 0) + 1)


class DescribesNoServer(MemoryTransport, AsyncAPISource):
    """The AsyncAPI document names no server."""

    @classmethod
    def asyncapi(cls, settings: Any, api_name: str, event_name: str) -> AsyncAPIParts:
        return AsyncAPIParts(server={"host": "", "protocol": ""})


class DoesNotListAFeature(MemoryTransport):
    """It has the methods of a feature, but does not list the feature."""

    async def find(self, event_id: str) -> list[EventLocation]:
        return []


class FindsNothing(MemoryTransport, FindEvent):
    """No event is found."""

    async def find(self, event_id: str) -> list[EventLocation]:
        return []


class IsAlwaysHealthy(MemoryTransport):
    """A closed transport says that it is healthy."""

    async def check_health(self, *, timeout: float) -> list[str]:
        return []


class RemovesQueuesInUse(MemoryTransport):
    """A queue is removed although a worker uses it."""

    async def remove_listener_queue(self, queue: QueueAddress, *, discard: bool = False) -> int:
        try:
            return await super().remove_listener_queue(queue, discard=discard)
        except QueueInUse:
            return 0


class ShowsEventsOfEveryApi(MemoryTransport):
    """A tail shows the events of all APIs."""

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        return await super().tail(api_name.removesuffix(".v2"))


# Streams


class PrefetchesEverything(MemoryStream):
    """A stream prefetches all events of its queue."""

    async def __anext__(self) -> MemoryDelivery:
        prefetched: list[MemoryDelivery] = self.__dict__.setdefault("prefetched", [])
        if not prefetched:
            prefetched.append(await super().__anext__())
            while entry := self.queue.get():
                prefetched.append(MemoryDelivery(self, entry))
        return prefetched.pop(0)


class ReversesOrder(MemoryStream):
    """The event that was sent last is delivered first."""

    async def __anext__(self) -> MemoryDelivery:
        deliveries = [await super().__anext__()]
        while entry := self.queue.get():
            deliveries.append(MemoryDelivery(self, entry))
        for delivery in deliveries[:-1]:
            await delivery.requeue()
        self.unsettled.add(deliveries[-1])
        return deliveries[-1]


class LeavesUnsettledEventsBehind(MemoryStream):
    """Deliveries that are unsettled when a stream is closed are not redelivered."""

    async def aclose(self) -> None:
        await self.stop()


# Deliveries


class AcksTwice(MemoryDelivery):
    """An acknowledgement also acknowledges the next event."""

    async def ack(self) -> None:
        await super().ack()
        if self._stream.queue.get() is not None:
            self._stream.queue.settle()


class DropsOnRequeue(MemoryDelivery):
    """A requeued event is lost."""

    async def requeue(self) -> None:
        await self.ack()


class SettlesAgain(MemoryDelivery):
    """A settled delivery can be settled again."""

    async def requeue(self) -> None:
        self.is_settled = False
        await super().requeue()


class ForgetsTheAttempt(MemoryDelivery):
    """Each attempt has the same number."""

    async def retry(self, *, after: float, counts: bool = True) -> None:
        self._entry.attempt = self.attempt = 0
        await super().retry(after=after, counts=counts)


class RetriesAtOnce(MemoryDelivery):
    """A retry ignores its delay."""

    async def retry(self, *, after: float, counts: bool = True) -> None:
        await super().retry(after=0)


class LosesDeadLetters(MemoryDelivery):
    """A dead letter is not stored."""

    async def dead_letter(self, failure: Failure) -> None:
        await self.ack()


class ForgetsTheFailure(MemoryDelivery):
    """A dead letter is stored without its failure."""

    async def dead_letter(self, failure: Failure) -> None:
        await super().dead_letter(attrs.evolve(failure, error_message="failed", traceback=""))


class StartsALastAttemptOnce(MemoryDelivery, LastAttempt):
    """A last attempt that was requeued cannot start again."""

    _started: ClassVar[set[str]] = set()

    async def last_attempt(self, max_attempts: int) -> Delivery | None:
        if self.message.id in self._started:
            return None
        self._started.add(self.message.id)
        return self


def with_stream(stream_class: type[MemoryStream]) -> type[MemoryTransport]:
    """Return a memory transport with streams of this class."""

    class Mutant(MemoryTransport):
        async def subscribe(self, subscription: Subscription) -> MemoryStream:
            stream = await super().subscribe(subscription)
            stream.__class__ = stream_class
            return stream

    return Mutant


def with_delivery(delivery_class: type[MemoryDelivery]) -> type[MemoryTransport]:
    """Return a memory transport with deliveries of this class."""

    class Stream(MemoryStream):
        async def __anext__(self) -> MemoryDelivery:
            delivery = await super().__anext__()
            delivery.__class__ = delivery_class
            return delivery

    return with_stream(Stream)


_STREAMS = (PrefetchesEverything, LeavesUnsettledEventsBehind, ReversesOrder)
_DELIVERIES = (
    AcksTwice,
    DropsOnRequeue,
    ForgetsTheAttempt,
    ForgetsTheFailure,
    LosesDeadLetters,
    RetriesAtOnce,
    SettlesAgain,
)


class StartsALastAttemptOnceTransport(with_delivery(StartsALastAttemptOnce), InexactAttempts):  # type: ignore[misc]
    """Lists the feature of its deliveries."""


MUTANTS: Mapping[str, type[EventTransport]] = {
    "ClaimsToBeShared": ClaimsToBeShared,
    "CountsOneEventTooMany": CountsOneEventTooMany,
    "DescribesNoServer": DescribesNoServer,
    "DoesNotListAFeature": DoesNotListAFeature,
    "FindsNothing": FindsNothing,
    "IsAlwaysHealthy": IsAlwaysHealthy,
    "RemovesQueuesInUse": RemovesQueuesInUse,
    "ShowsEventsOfEveryApi": ShowsEventsOfEveryApi,
    "StartsALastAttemptOnce": StartsALastAttemptOnceTransport,
    "DeliversToOneListenerOnly": DeliversToOneListenerOnly,
    "DiscardsReadDeadLetters": DiscardsReadDeadLetters,
    "LosesEventsInAMigration": LosesEventsInAMigration,
    "ReturnsFromSendEarly": ReturnsFromSendEarly,
    "SendsWhenClosed": SendsWhenClosed,
    "SharesDeadLettersAmongReaders": SharesDeadLettersAmongReaders,
    **{stream.__name__: with_stream(stream) for stream in _STREAMS},
    **{delivery.__name__: with_delivery(delivery) for delivery in _DELIVERIES},
}
