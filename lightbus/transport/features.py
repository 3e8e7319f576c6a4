"""What a transport may support beyond `lightbus.transport.contract`, with the same errors.

A transport lists the features that it supports by deriving from them. A method without `timeout`
waits for the broker as long as the settings of the transport say.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

from lightbus.exceptions import FeatureNotSupported
from lightbus.message import EventMessage
from lightbus.transport import records
from lightbus.transport.contract import Delivery, EventTransport
from lightbus.transport.failure import Failure

F = TypeVar("F")


def lists(transport_class: type[EventTransport], feature: type[F]) -> TypeGuard[type[F]]:
    """Return whether a class of transports lists `feature`."""
    return feature in transport_class.__mro__


def supports(transport: EventTransport, feature: type[F]) -> TypeGuard[F]:
    """Return whether a transport supports `feature`."""
    return lists(type(transport), feature)


def require(transport: EventTransport, feature: type[F], needed_by: str) -> F:
    """Return `transport`, or raise `FeatureNotSupported`, which names `needed_by` and `feature`."""
    if supports(transport, feature):
        return transport
    raise FeatureNotSupported(type(transport).__name__, feature.__name__, needed_by)


class SharedBroker(Protocol):
    """Processes share the broker, and its events outlive them. This feature has no methods."""


class HealthCheck(Protocol):
    """Says whether the transport works now."""

    @abstractmethod
    async def check_health(self, *, timeout: float) -> list[str]:
        """Return what keeps the transport from sending, or a stream from consuming: a sentence
        each, and none if it is healthy. No answer in `timeout` seconds is reported, not raised.
        """


class QueueStats(Protocol):
    """Counts the events in the queue of a listener."""

    @abstractmethod
    async def stats(self, queue: records.QueueAddress) -> records.SubscriptionStats:
        """Count the events in a queue. Raise `NotDeclared` if the broker knows no such queue."""


class DeadLetter(Protocol):
    """A dead letter in a store.

    Attributes:
        message: The event.
        failure: Why it was dead-lettered.
    """

    message: EventMessage
    failure: Failure

    @abstractmethod
    async def discard(self) -> None:
        """Remove it, at the latest when the iteration that yielded it ends. After an error, it may
        still be there.
        """


class DeadLetterStore(Protocol):
    """Reads the dead letters of services, and adds to them."""

    @abstractmethod
    def dead_letters(self, service_name: str) -> AsyncGenerator[DeadLetter]:
        """Yield all dead letters of a service, oldest first. Those that are not discarded stay. Of
        two readers at once, each gets all of them; one may wait for the other.

        Raises:
            QueueInUse: Another client holds some of them. Others may have been yielded.
        """

    @abstractmethod
    async def add_dead_letter(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        """Add a dead letter. The errors are those of `EventTransport.send`."""

    async def count_dead_letters(self, service_name: str) -> records.DeadLetterCount:
        """Count the dead letters of a service, and hold none. By default, this reads them all."""
        counted: Counter[tuple[str, str]] = Counter()
        async with contextlib.aclosing(self.dead_letters(service_name)) as letters:
            async for letter in letters:
                counted[letter.message.api_name, letter.failure.listener] += 1
        return records.DeadLetterCount(total=counted.total(), by_listener=counted)


class Tail(Protocol):
    """Shows events while they are sent."""

    @abstractmethod
    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        """Return the events of an API that are sent from now on, whether a subscription receives
        them or not; no subscription loses any. A slow reader misses events. The iteration raises
        `TransportUnavailable` when the broker is lost. Close it after use.
        """


class FindEvent(Protocol):
    """Finds events in the queues of all services."""

    @abstractmethod
    async def find(self, event_id: str) -> list[records.EventLocation]:
        """Return where the events are whose id is, or starts with, `event_id`."""


class ListenerQueues(Protocol):
    """Lists and removes the queues of listeners."""

    @abstractmethod
    async def listener_queues(self, service_name: str) -> list[records.ListenerQueue] | None:
        """Return the queues of a service, sorted by name; None if the broker does not list them."""

    @abstractmethod
    async def remove_listener_queue(
        self, queue: records.QueueAddress, *, discard: bool = False
    ) -> int:
        """Delete a queue, and return how many events were in it.

        Raises:
            NotDeclared: There is no such queue.
            QueueInUse: A worker consumes from it, or it has events and `discard` is not set.
        """


class ManagedTopology(Protocol):
    """Compares and changes the objects at the broker, where others can change them, too."""

    @abstractmethod
    async def topology(
        self, subscriptions: Collection[records.Subscription], events: Mapping[str, Collection[str]]
    ) -> list[records.BrokerObject]:
        """Compare the objects at the broker with those that a service needs, and change nothing.
        `events` are the names of the known events of each API that the service uses.
        """

    @abstractmethod
    async def migrate(
        self,
        subscriptions: Collection[records.Subscription],
        events: Mapping[str, Collection[str]],
        *,
        on_progress: Callable[[records.MigrationProgress], None],
    ) -> None:
        """Create missing objects, change those that differ, and unbind from a queue the `events`
        that its subscription does not name. An interruption loses no event, and the next call
        continues. An event keeps its attempt number, and may be delivered twice.
        """


class AsyncAPISource(Protocol):
    """Describes its broker in the AsyncAPI document of a service."""

    @classmethod
    @abstractmethod
    def asyncapi(cls, settings: Any, api_name: str, event_name: str) -> records.AsyncAPIParts:
        """Return what the document says of an event on a broker with these settings."""


class InexactAttempts(Protocol):
    """Counts an attempt also for events that a lost worker had only prefetched.

    The attempt number may be too high, and may leave out an attempt that ended with the loss of its
    worker. Each delivery derives from `LastAttempt`. This feature has no methods.
    """


@runtime_checkable
class LastAttempt(Delivery, Protocol):
    """A delivery that records when its last attempt starts."""

    @abstractmethod
    async def last_attempt(self, max_attempts: int) -> Delivery | None:
        """Record that the last attempt starts, and return the delivery to settle; None if it had
        started before. The broker stores the record until the attempt is settled, so an event is
        dead-lettered only after a handler has started the last attempt. The core calls this before
        the handler if `attempt` is 2 or more and at least `max_attempts`.

        Raises:
            EventRequeued: The event had no id, and was requeued with one. This delivery is settled.
        """
