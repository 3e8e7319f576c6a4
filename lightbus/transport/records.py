"""The values that cross the border between the bus and a transport."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from lightbus.message import EventMessage


@attrs.frozen(kw_only=True, cache_hash=True)
class QueueAddress:
    """Names the queue of one listener on one API.

    Attributes:
        service_name: The listener's service. Each service receives every event.
        listener_name: The listener. Each listener of a service receives every event; the workers
            of one service share the events of a listener.
        api_name: The API.
    """

    service_name: str
    listener_name: str
    api_name: str

    @property
    def owner(self) -> str:
        """The listener and its API, for messages."""
        return f"listener {self.listener_name!r} on {self.api_name}"


@attrs.frozen(kw_only=True, cache_hash=True)
class Subscription(QueueAddress):
    """What one listener receives of one API, and how.

    Attributes:
        events: The names of the API's events.
        concurrency: How many deliveries the listener handles at once. The stream yields at least
            this many before one is settled.
        acknowledgement_timeout: How long a handler may take, in seconds. A prefetched delivery may
            wait this long for each delivery before it.
        delays: Each delay that the listener may ask for, in seconds, so that the broker can be
            prepared when the listener starts.
    """

    events: frozenset[str]
    concurrency: int
    acknowledgement_timeout: float
    delays: frozenset[float]


@attrs.frozen(kw_only=True)
class SubscriptionStats:
    """How many events of a subscription are in each state; None if the broker does not tell.

    Attributes:
        waiting: Ready to be delivered.
        delayed: Not to be delivered before a certain time.
        in_flight: Delivered to a worker, and not settled.
        workers: How many workers consume them.
    """

    waiting: int | None
    delayed: int | None
    in_flight: int | None
    workers: int | None = None

    @property
    def total(self) -> int:
        """How many events there are, as far as the broker tells."""
        return (self.waiting or 0) + (self.delayed or 0) + (self.in_flight or 0)


class ObjectState(enum.Enum):
    """How an object at a broker differs from the topology of the service.

    Attributes:
        OK: It does not differ.
        MISSING: It does not exist.
        DIFFERENT: One of its settings differs.
        UNFINISHED: An interrupted migration left it behind.
        UNUSED: Nothing needs it any more.
        UNKNOWN: The broker does not report it.
        OLD: An earlier version made it, and a migration replaces it.
    """

    OK = "ok"
    MISSING = "missing"
    DIFFERENT = "different"
    UNFINISHED = "unfinished"
    UNUSED = "unused"
    UNKNOWN = "unknown"
    OLD = "old"

    @property
    def is_good(self) -> bool:
        """Whether the service can work with it, as far as the broker tells."""
        return self in (ObjectState.OK, ObjectState.UNUSED, ObjectState.UNKNOWN)


@attrs.frozen(kw_only=True)
class BrokerObject:
    """An object of the topology, and its state at the broker.

    Attributes:
        kind: The broker's word for it, such as "queue".
        name: Its name at the broker.
        state: How it differs.
        argument: The setting that differs; empty if none does.
        wanted: The expected value of that setting.
        actual: The actual value of that setting.
        note: More to know, or what to do, in a sentence or two.
    """

    kind: str
    name: str
    state: ObjectState
    argument: str = ""
    wanted: str = ""
    actual: str = ""
    note: str = ""


@attrs.frozen(kw_only=True)
class MigrationProgress:
    """The progress of the migration of one object.

    Attributes:
        name: The name of the object.
        moved: How many events were moved. Each moves twice: to a temporary queue, and back.
        left: How many events are known to be left to move.
        is_done: Whether the object matches the topology now.
    """

    name: str
    moved: int
    left: int
    is_done: bool


@attrs.frozen(kw_only=True)
class ListenerQueue:
    """A listener's queue at the broker.

    Attributes:
        listener_name: The listener.
        api_name: The API.
        events: How many events are in it, as far as the broker tells.
    """

    listener_name: str
    api_name: str
    events: int


class LocationState(enum.Enum):
    """The state of an event in a listener's queue.

    Attributes:
        WAITING: It can be delivered.
        DELAYED: It is not delivered before a certain time.
        IN_FLIGHT: It was delivered to a worker, and not settled.
    """

    WAITING = "waiting"
    DELAYED = "delayed"
    IN_FLIGHT = "in flight"


@attrs.frozen(kw_only=True)
class EventLocation:
    """An event in the queue of one listener.

    Attributes:
        message: The event.
        service_name: The listener's service.
        listener_name: The listener.
        state: Its state there.
        attempt: The number of this attempt, or of the next one, from 1.
        until: When the delay, or the lease of the worker, ends, in UTC; None if it is waiting.
    """

    message: EventMessage
    service_name: str
    listener_name: str
    state: LocationState
    attempt: int
    until: datetime | None


@attrs.frozen(kw_only=True)
class AsyncAPIParts:
    """What a transport adds to an AsyncAPI document, for one event. Empty parts are left out.

    The objects are those of AsyncAPI 3.0.0.

    Attributes:
        address: Where the event is sent. Default: its canonical name.
        server: A Server Object, without secrets.
        channel: A Channel Bindings Object.
    """

    address: str = ""
    server: Mapping[str, Any] = attrs.field(factory=dict)
    channel: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class DeadLetterCount:
    """How many dead letters a service has; None if the broker does not tell.

    Attributes:
        total: All of them.
        by_listener: The number for each listener, by the names of its API and of the listener.
            A listener without dead letters is missing.
    """

    total: int | None
    by_listener: Mapping[tuple[str, str], int] | None = None


class EventRequeued(Exception):
    """Tells the core that a transport settled a delivery by requeueing its event."""
