"""The contract between the bus and a broker: what a transport does, and what it may rely on.

The core owns policy: how long a handler may take, how often it is tried, what a failure means. A
transport owns mechanism: how its broker keeps, waits, counts and parks. One transport object serves
one event loop and is used on that loop only. The bus closes it when that loop ends, as that of
`asyncio.run` does; its tasks may have been cancelled by then. Every method may be cancelled at any
`await`; an event is then either untouched or fully delivered, and is redelivered if that is
uncertain.

Broker errors leave a transport as a `TransportError`, chained to the driver's own error.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol

from lightbus.exceptions import TransportRefused
from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.features import Capability, DeadLetter
from lightbus.transport.records import (
    AsyncAPIParts,
    BrokerObject,
    DeadLetterCount,
    EventLocation,
    ListenerQueue,
    MigrationProgress,
    Subscription,
    SubscriptionStats,
)


class Delivery(Protocol):
    """One event handed to one listener, to be settled by exactly one of the methods below.

    A second settlement does nothing. Nor does the settlement of a delivery that the broker has
    already requeued, for example because the connection was lost: it is logged, and the event is
    redelivered. `retry`, `defer` and `dead_letter` may raise; the delivery is then unsettled and
    the call may be repeated.

    Attributes:
        message: The event. Its body may be any bytes.
        attempt: The attempt number, from 1, across restarts and workers. Without
            `Capability.EXACT_ATTEMPTS`, it may be too high, and it may leave out an attempt that
            ended with the loss of its worker.
        returns: How often the event was returned to the queue since it was last sent there, because
            its worker was lost (killed, or connection lost) or by `retry(after=0)`.
        first_failed_at: When `retry` was first called with a delay, in UTC; None if it was not.
    """

    message: EventMessage
    attempt: int
    returns: int
    first_failed_at: datetime | None

    async def last_attempt(self, max_attempts: int) -> Delivery | None:
        """Record that the last attempt starts, and return the delivery to settle it with; None if
        the last attempt had already started.

        Called before the handler if `attempt` is above 1 and at least `max_attempts`. Without
        `Capability.EXACT_ATTEMPTS`, the broker has to keep that record until the attempt is
        settled. So an event becomes a dead letter only after a handler has started its last
        attempt.

        Raises:
            EventRequeued: The broker could not tell the event from others. It has been requeued
                with an id, and this delivery is settled.
            TransportError: The broker did not confirm. The call may be repeated.
        """
        return self if self.attempt <= max_attempts else None

    @abstractmethod
    async def ack(self) -> None:
        """Say that the event is handled."""

    @abstractmethod
    async def requeue(self) -> None:
        """Give the event back untouched, near its old place: not an attempt, as far as the broker
        can tell.
        """

    @abstractmethod
    async def retry(self, *, after: float) -> None:
        """Say that the attempt failed, and have the event come to this listener as the next attempt
        in `after` seconds: 0, or one of the subscription's `delays`. Other events do not wait.

        Raises:
            TransportError: The broker did not confirm.
            ValueError: `after` is none of these.
        """

    @abstractmethod
    async def defer(self, *, after: float) -> None:
        """Have the event come to this listener as the same attempt in `after` seconds, one of the
        subscription's `delays`, with `returns` at 0.

        Raises:
            TransportError: The broker did not confirm.
            ValueError: `after` is none of these.
        """

    @abstractmethod
    async def dead_letter(self, failure: Failure) -> None:
        """Stop trying. The event is kept with its parameters and `failure` for people to read.

        Raises:
            TransportError: The broker did not confirm.
        """


class DeliveryStream(Protocol):
    """The deliveries of one subscription, in the order in which its events were sent.

    At most a bounded number of deliveries is held in memory ahead of the listener. A stream
    outlives a lost broker: it waits, and goes on when the broker is back.
    """

    @abstractmethod
    def __aiter__(self) -> DeliveryStream:
        """Return the stream itself."""

    @abstractmethod
    async def __anext__(self) -> Delivery:
        """Return the next delivery. Several tasks may wait at once.

        Raises:
            StopAsyncIteration: The stream was stopped.
            TransportError: The stream cannot go on (`TransportRefused`, `TopologyMismatch`).
        """

    @abstractmethod
    async def stop(self) -> None:
        """Take no more deliveries, and requeue those that no task has received, in their places.
        What a task has received can still be settled. Stopping again does nothing.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Stop, wait until the broker has every settlement, and requeue unsettled deliveries.
        Closing again does nothing.
        """


class EventTransport(Protocol):
    """A way to a broker. Derive from it, and name the class in the entry point group
    ``lightbus.transports``.

    Attributes:
        Settings: What the configuration may say below the transport's name: a `msgspec.Struct`
            or an attrs class or a dataclass. Its `str` says where events go, without secrets.
            `create` makes it once: the settings must not read the environment, such as the current
            folder, again later.
        lacking: The capabilities that it does not have, each with the reason in a sentence. An
            operation that needs one raises `TransportRefused` with that reason.
    """

    Settings: ClassVar[type[Any]]
    lacking: ClassVar[Mapping[Capability, str]] = {}

    @abstractmethod
    def __init__(self, settings: Any, *, client_name: str) -> None:
        """Touch nothing yet. `client_name` is how this process shows up at the broker."""

    @abstractmethod
    async def open(self, *, timeout: float) -> None:
        """Reach the broker; every other method is called after this. An open transport stays open
        across a lost broker, and after an error `open` may be called again.

        Raises:
            TransportUnavailable: Not reached in `timeout` seconds.
            TransportRefused: Reached, and refused.
        """

    @abstractmethod
    async def send(
        self, message: EventMessage, *, timeout: float, require_listeners: bool = False
    ) -> None:
        """Return once the broker has taken responsibility: the event survives a crash of this
        process and of the broker, and reaches every subscription declared before.

        Many calls may be under way at once; an event that one task sends after another is delivered
        after it.

        Raises:
            TransportUnavailable: The broker was away for `timeout` seconds; the event was not sent.
            TransportRefused: The broker does not let this client send; the event was not sent.
            TopologyMismatch: What sending needs differs at the broker; the event was not sent.
            SendOutcomeUnknown: It was sent, and not confirmed within `timeout` seconds.
            SendRefused: The broker did not take it; or no subscription wants it, where
                `require_listeners` says that one must.
        """

    @abstractmethod
    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        """Have the broker keep events for `subscription` from now on. Doing so again is harmless.

        Raises:
            TransportUnavailable: The broker was away for `timeout` seconds.
            TransportRefused: The broker does not let this client declare it.
            TopologyMismatch: What the broker holds differs from what this would declare.
        """

    @abstractmethod
    async def subscribe(self, subscription: Subscription) -> DeliveryStream:
        """Declare `subscription` and start to take its deliveries; wait for a broker that is away.

        Raises:
            TransportRefused: As `declare` does.
            TopologyMismatch: Likewise.
            TransportError: The broker failed in another way.
        """

    @abstractmethod
    async def put(
        self, subscription: Subscription, message: EventMessage, *, attempt: int, timeout: float
    ) -> None:
        """Send an event to one declared subscription alone, as that attempt.

        Args:
            subscription: Which one.
            message: The event.
            attempt: The number that its next delivery has, counted from 1.
            timeout: How long the broker may be away, or not confirm, in seconds.

        Raises:
            TransportError: As `send` does; or the subscription is not declared, where the broker
                tells.
        """

    @abstractmethod
    async def stats(self, subscription: Subscription) -> SubscriptionStats:
        """Count the events of a declared subscription.

        Raises:
            NotDeclared: It is not, where the broker tells.
            TransportError: The broker did not tell.
        """

    @abstractmethod
    def dead_letters(self, service_name: str) -> AsyncGenerator[DeadLetter]:
        """Yield all dead letters of a service, oldest first. Those that are not discarded stay.

        If two readers read at once, each gets all of them; one may wait for the other.

        Raises:
            DeadLettersInUse: Another client uses them, so that not all can be read. This may be
                raised after some were yielded.
            TransportError: They cannot be read.
        """

    async def count_dead_letters(self, service_name: str) -> DeadLetterCount:
        """Count the dead letters of a service, without holding any of them. The default
        implementation reads them all.

        Raises:
            TransportError: The broker did not answer.
        """
        counted: Counter[tuple[str, str]] = Counter()
        letters = self.dead_letters(service_name)
        async with contextlib.aclosing(letters):
            async for letter in letters:
                counted[letter.message.api_name, letter.failure.listener] += 1
        return DeadLetterCount(total=counted.total(), by_listener=counted)

    @abstractmethod
    async def bury(
        self, service_name: str, message: EventMessage, failure: Failure, *, timeout: float
    ) -> None:
        """Add a dead letter to those of a service.

        Args:
            service_name: The service.
            message: The event.
            failure: Why it was given up.
            timeout: How long the broker may be away, or not confirm, in seconds.

        Raises:
            TransportError: As `send` does.
        """

    async def tail(self, api_name: str) -> AsyncGenerator[EventMessage]:
        """Return the events of an API that are sent from now on, wanted by a subscription or not;
        close it after use. It takes nothing from any subscription. What comes much faster than it
        is read is left out.

        The iteration raises `TransportUnavailable` where the broker is lost.

        Raises:
            TransportRefused: This transport cannot show them.
            TransportUnavailable: The broker was not reached.
        """
        raise TransportRefused(f"{type(self).__name__} cannot show the events of {api_name!r}.")

    async def find(self, event_id: str) -> list[EventLocation] | None:
        """Return where the events are whose id is, or begins with, `event_id`, for every service;
        None where the broker does not tell.

        Raises:
            TransportError: The broker did not answer.
        """
        return None

    async def listener_queues(self, service_name: str) -> list[ListenerQueue] | None:
        """Return the queues of all listeners that a service has or had, sorted by name; None if the
        broker does not list them.

        Raises:
            TransportError: The broker did not answer.
        """
        return None

    async def remove_listener_queue(
        self, service_name: str, listener_name: str, api_name: str, *, discard: bool = False
    ) -> int:
        """Delete the queue of a listener, so that the broker keeps no more events for it.

        Args:
            service_name: The service.
            listener_name: The listener.
            api_name: The API.
            discard: Whether the events in it may be lost.

        Returns:
            How many events were lost with it.

        Raises:
            NotDeclared: There is no such queue.
            ListenerInUse: A worker uses it.
            ListenerQueueNotEmpty: Events are in it, and `discard` is not given.
            TransportRefused: This transport cannot do it.
            TransportError: The broker failed.
        """
        raise TransportRefused(f"{type(self).__name__} cannot remove the queue of a listener.")

    async def topology(
        self, subscriptions: Collection[Subscription], events: Mapping[str, Collection[str]]
    ) -> list[BrokerObject]:
        """Compare what the broker holds with what is wanted, and change nothing.

        Nothing is compared where nothing can differ, as it can where others than this transport
        make queues, or other versions of it.

        Args:
            subscriptions: What a service listens for.
            events: By the name of each API that it fires or listens to, the names of the API's
                events, as far as they are known.

        Raises:
            TransportError: The broker did not tell.
        """
        return []

    async def migrate(
        self,
        subscriptions: Collection[Subscription],
        events: Mapping[str, Collection[str]],
        *,
        on_progress: Callable[[MigrationProgress], None],
    ) -> None:
        """Create missing objects, change those that differ, and unbind the `events` that a
        subscription does not name from its queue.

        No event is lost if this is interrupted at any point; the next call continues. An event
        keeps its attempt number, and may be delivered twice.

        Args:
            subscriptions: As for `topology`.
            events: Likewise.
            on_progress: Called repeatedly with the progress of the migration of an object.

        Raises:
            TransportRefused: The migration cannot run, or not now; it says why. No change was made,
                or the next call completes the change.
            TransportError: The broker failed.
        """
        found = await self.topology(subscriptions, events)
        if left := [one.name for one in found if not one.state.is_good]:
            raise TransportRefused(f"This transport does not migrate: change {left} by hand.")

    @classmethod
    def asyncapi(cls, settings: Any, api_name: str, event_name: str) -> AsyncAPIParts:
        """Return what an AsyncAPI document says of an event on a broker with these settings."""
        return AsyncAPIParts()

    @abstractmethod
    async def problems(self, *, timeout: float) -> list[str]:
        """Say what keeps the transport from sending, or one of its streams from taking, just now: a
        sentence each, and none where all is well. No answer in `timeout` seconds is a problem.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections and requeue unsettled deliveries. Closing again does nothing. A
        call of any other method then raises `TransportClosed`, but for `problems`, which says it.
        """
