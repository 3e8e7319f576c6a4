"""The values that cross the border between the bus and a transport."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from lightbus.message import EventMessage


@attrs.frozen(kw_only=True, cache_hash=True)
class Subscription:
    """What one listener wants of one API.

    Attributes:
        service_name: Listeners of different services each get every event.
        listener_name: So do differently named listeners of one service. Workers of one service
            that subscribe under one name share the events.
        api_name: The API.
        events: Names of the API's events.
        concurrency: How many deliveries the listener works on at once. So many, at least, it can
            take without settling one.
        acknowledgement_timeout: How long it may work on one, in seconds. What is handed out ahead
            of it waits for as many of these as there are deliveries before it.
        delays: Every wait that the listener may ask for, in seconds, so that the broker can be
            prepared when all is well.
    """

    service_name: str
    listener_name: str
    api_name: str
    events: frozenset[str]
    concurrency: int
    acknowledgement_timeout: float
    delays: frozenset[float]


@attrs.frozen(kw_only=True)
class SubscriptionStats:
    """How many events of one subscription are where; None is for what the broker cannot tell.

    Attributes:
        waiting: Ready to be taken.
        delayed: Waiting for their time.
        taken: Handed to a worker, and not settled.
        workers: How many there are that take them.
    """

    waiting: int
    delayed: int | None
    taken: int | None
    workers: int | None = None


class ObjectState(enum.Enum):
    """How an object at a broker compares with the topology of the service.

    Attributes:
        OK: It matches.
        MISSING: It is not there.
        DIFFERENT: One of its settings differs.
        UNFINISHED: An interrupted migration left it behind.
        UNUSED: Nothing needs it any more.
        UNKNOWN: The broker does not report it.
        OLD: It is from an earlier version, and a migration replaces it.
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
        """Whether all that is wanted is there, as far as the broker tells."""
        return self in (ObjectState.OK, ObjectState.UNUSED, ObjectState.UNKNOWN)


@attrs.frozen(kw_only=True)
class BrokerObject:
    """An object of the topology, and its state at the broker.

    Attributes:
        kind: What it is, in the broker's own word, such as "queue".
        name: Its name there.
        state: How it compares.
        argument: Which of its settings differs, if one does.
        wanted: The wanted value of that setting.
        actual: The actual value of that setting.
        note: What else there is to know, or to do, in a sentence or two.
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
    """How far the migration of one object is.

    Attributes:
        name: The object's name.
        moved: How many events were moved. Each moves twice: away, and back.
        left: How many are known to be left to move.
        is_done: Whether the object is as it is wanted.
    """

    name: str
    moved: int
    left: int
    is_done: bool


@attrs.frozen(kw_only=True)
class ListenerQueue:
    """What a broker keeps for one listener on one API.

    Attributes:
        listener_name: The listener.
        api_name: The API.
        events: How many events are in it, as far as the broker tells.
    """

    listener_name: str
    api_name: str
    events: int


class LocationState(enum.Enum):
    """What an event does in a listener's queue.

    Attributes:
        WAITING: It can be taken.
        DELAYED: It waits for its time.
        TAKEN: A worker has it.
    """

    WAITING = "waiting"
    DELAYED = "delayed"
    TAKEN = "taken"


@attrs.frozen(kw_only=True)
class EventLocation:
    """An event in the queue of one listener.

    Attributes:
        message: The event.
        service_name: The listener's service.
        listener_name: The listener.
        state: What it does there.
        attempt: Which attempt it is, or will be, counted from 1.
        until: When its delay, or the lease of the worker that has it, ends, in UTC; None where it
            waits.
    """

    message: EventMessage
    service_name: str
    listener_name: str
    state: LocationState
    attempt: int
    until: datetime | None


@attrs.frozen(kw_only=True)
class AsyncAPIParts:
    """What a transport adds to an AsyncAPI document, for one event; what is empty is left out.

    The objects are those of AsyncAPI 3.0.0.

    Attributes:
        address: Where the event is sent to; by default its canonical name.
        server: A Server Object. It holds no secret.
        channel: A Channel Bindings Object.
    """

    address: str = ""
    server: Mapping[str, Any] = attrs.field(factory=dict)
    channel: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class DeadLetterCount:
    """How many dead letters a service has; None if the broker does not report it.

    Attributes:
        total: All of them.
        by_listener: The number for each listener, by the names of its API and of the listener. A
            listener that is missing has none.
    """

    total: int | None
    by_listener: Mapping[tuple[str, str], int] | None = None
