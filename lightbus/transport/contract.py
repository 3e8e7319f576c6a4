"""What every transport implements. Optional features are in `lightbus.transport.features`.

The core owns policy: how long a handler may take, how often an event is tried, what a failure
means. A transport owns mechanism: how its broker stores, delays, counts and dead-letters.

A transport object serves one event loop, and the bus closes it when that loop ends. Each method may
be cancelled at any `await`. The event is then unchanged, or fully processed, or it is redelivered.

Errors are `TransportError`s, chained to those of the driver: `TransportUnavailable` if the broker
was away for `timeout` seconds, `TransportRefused` if it does not allow the call, `TopologyMismatch`
if an object at the broker differs. Nothing was sent or changed then.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus.transport.records import QueueAddress, Subscription


class Delivery(Protocol):
    """One event for one listener, to be settled once, by one of the methods below.

    A second settlement does nothing. Nor does the settlement of a delivery that the broker has
    already requeued, for example after a lost connection: it is logged, and the event is
    redelivered. After an error, the delivery is unsettled, and the call may be repeated.

    Attributes:
        message: The event. Its body may be any bytes.
        attempt: The number of this attempt, from 1, across restarts and workers.
        redeliveries: How often the event returned to the queue since it was sent there, because
            its worker was lost, or by `retry(after=0)`.
        first_failed_at: When `retry` was first called with a delay, in UTC; None if it was not.
    """

    message: EventMessage
    attempt: int
    redeliveries: int
    first_failed_at: datetime | None

    @abstractmethod
    async def ack(self) -> None:
        """Acknowledge the event: it was handled."""

    @abstractmethod
    async def requeue(self) -> None:
        """Return the event to its place in the queue, without counting an attempt."""

    @abstractmethod
    async def retry(self, *, after: float, counts: bool = True) -> None:
        """Deliver the event to this listener again in `after` seconds. Other events do not wait.

        Args:
            after: One of the subscription's `delays`, or 0 to return it to its place.
            counts: Whether an attempt failed. If not, `after` is not 0, the event keeps its
                `attempt`, and its `redeliveries` are 0.

        Raises:
            ValueError: `after` is another delay.
        """

    @abstractmethod
    async def dead_letter(self, failure: Failure) -> None:
        """Stop trying: store the event and `failure` among the dead letters of the service."""


class DeliveryStream(Protocol):
    """The deliveries of one subscription, in the order in which its events were sent.

    A stream holds a bounded number of deliveries ahead of the listener. When the broker is lost,
    it waits, and continues when the broker is back. Stopping or closing again does nothing.
    """

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> Delivery:
        """Return the next delivery. Several tasks may wait at once. A stopped stream ends, and one
        that cannot continue raises the error.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Stop consuming, and requeue deliveries that no task has received."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stop, wait until the broker has each settlement, and requeue unsettled deliveries."""


class EventTransport(Protocol):
    """A connection to a broker.

    Attributes:
        Settings: What the configuration may say: a `msgspec.Struct`, an attrs class or a dataclass
            that reads the environment only when it is created. Its `str` names no secrets.
    """

    Settings: ClassVar[type[Any]]

    @abstractmethod
    def __init__(self, settings: Any, *, client_name: str) -> None:
        """Do no I/O. `client_name` is what the broker calls this process."""

    @abstractmethod
    async def open(self, *, timeout: float) -> None:
        """Connect. An open transport stays open when the broker is lost. After an error, `open` may
        be called again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Flush, requeue unsettled deliveries and disconnect. Closing again does nothing; each
        other method then raises `TransportClosed`.
        """

    @abstractmethod
    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        """Store events for `subscription` from now on. Declaring it again does nothing."""

    @abstractmethod
    async def send(
        self,
        message: EventMessage,
        *,
        timeout: float,
        require_listeners: bool = False,
        to: QueueAddress | None = None,
        attempt: int = 1,
    ) -> None:
        """Send an event to each subscription that was declared for it, or only `to` a declared one
        as attempt number `attempt`. Return when the event survives a crash of this process and of
        the broker. Many calls may run at once; the events of one task keep their order.

        Raises:
            SendRefused: The broker did not store the event; or no subscription receives it, and
                `require_listeners` is set.
            SendOutcomeUnknown: The broker did not confirm within `timeout` seconds.
        """

    @abstractmethod
    async def subscribe(self, subscription: Subscription) -> DeliveryStream:
        """Declare `subscription` and consume its events; wait while the broker is unreachable."""
