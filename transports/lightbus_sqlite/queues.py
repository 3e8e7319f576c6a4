"""The queues of listeners. The functions are operations for `Database.write`."""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from typing import Any

from lightbus.exceptions import NotDeclared, QueueInUse
from lightbus.message import EventMessage
from lightbus.transport.records import (
    EventLocation,
    ListenerQueue,
    LocationState,
    QueueAddress,
    Subscription,
    SubscriptionStats,
)
from lightbus_sqlite import schema
from lightbus_sqlite.rows import message_columns, message_from
from lightbus_sqlite.tail import copy_for_tails

# A clock that was set back by more than this, in seconds, was wrong before.
_MAX_CLOCK_CORRECTION = 3 * 3600.0


def find_listener(connection: sqlite3.Connection, queue: QueueAddress) -> int:
    """Return the id of a listener.

    Raises:
        NotDeclared: The listener is not declared.
    """
    row = connection.execute(schema.FIND_LISTENER, _key(queue)).fetchone()
    if row is None:
        raise NotDeclared(
            f"Listener {queue.listener_name!r} of service {queue.service_name!r} has no queue for "
            f"events of {queue.api_name} in the SQLite file: declare it first."
        )
    return int(row[0])


def declare(connection: sqlite3.Connection, subscription: Subscription, *, lease: float) -> int:
    """Create the queue of a subscription and bind its events; return the listener's id.

    Args:
        connection: The connection.
        subscription: The subscription.
        lease: The duration of a lease, in seconds.
    """
    connection.execute(schema.ADD_LISTENER, _key(subscription))
    listener = find_listener(connection, subscription)
    bindings = [(subscription.api_name, name, listener) for name in subscription.events]
    connection.executemany(schema.ADD_BINDING, bindings)
    # A lease or a delay that ends later than possible was set by a clock that was ahead.
    latest = time.time() + max({lease, *subscription.delays})
    times = {"at": latest, "listener": listener, "beyond": latest + _MAX_CLOCK_CORRECTION}
    connection.execute(schema.SHORTEN_WAITS, times)
    return listener


def add_event(connection: sqlite3.Connection, message: EventMessage) -> bool:
    """Add an event to the queue of each listener that is declared for it; return whether there is
    one.
    """
    columns = message_columns(message)
    name = (message.api_name, message.event_name)
    has_listener, has_tail = connection.execute(
        schema.FIND_RECEIVERS, (*name, message.api_name)
    ).fetchone()
    if has_tail:
        copy_for_tails(connection, message.api_name, columns)
    if not has_listener:
        return False
    event = connection.execute(schema.ADD_EVENT, columns).lastrowid
    connection.execute(schema.ADD_DELIVERIES, (event, *name))
    return True


def add_event_to(
    connection: sqlite3.Connection, queue: QueueAddress, message: EventMessage, attempt: int
) -> None:
    """Add an event to one queue.

    Raises:
        NotDeclared: The queue does not exist.
    """
    listener = find_listener(connection, queue)
    event = connection.execute(schema.ADD_EVENT, message_columns(message)).lastrowid
    connection.execute(schema.ADD_DELIVERY, (listener, event, attempt))


def stats(connection: sqlite3.Connection, queue: QueueAddress) -> SubscriptionStats:
    """Count the events in a queue.

    Raises:
        NotDeclared: The queue does not exist.
    """
    parameters = {"now": time.time(), "listener": find_listener(connection, queue)}
    waiting, delayed, in_flight = connection.execute(schema.COUNT_BY_STATE, parameters).fetchone()
    return SubscriptionStats(waiting=waiting, delayed=delayed, in_flight=in_flight)


def list_queues(connection: sqlite3.Connection, service_name: str) -> list[ListenerQueue]:
    """Return the queues of a service, sorted by name."""
    return [
        ListenerQueue(listener_name=name, api_name=api, events=events)
        for name, api, events in connection.execute(schema.LIST_QUEUES, (service_name,))
    ]


def remove_queue(connection: sqlite3.Connection, queue: QueueAddress, *, discard: bool) -> int:
    """Remove a queue; return how many events were in it.

    Raises:
        NotDeclared: The queue does not exist.
        QueueInUse: A worker consumes from it; or it has events, and `discard` is not set.
    """
    listener = find_listener(connection, queue)
    parameters = {"listener": listener, "now": time.time()}
    if connection.execute(schema.IS_IN_USE, parameters).fetchone()[0]:
        raise QueueInUse(
            queue.owner, "a worker uses it. Stop the worker first; if it was killed, wait a minute"
        )
    (events,) = connection.execute(schema.COUNT_DELIVERIES, (listener,)).fetchone()
    if events and not discard:
        raise QueueInUse(queue.owner, events=events)
    for statement in schema.REMOVE_LISTENER:
        connection.execute(statement, (listener,))
    return int(events)


def find_event(connection: sqlite3.Connection, event_id: str) -> list[EventLocation]:
    """Return where the events are whose id is, or starts with, `event_id`."""
    now = time.time()
    rows = connection.execute(schema.FIND_EVENT, (event_id, event_id))
    return [_location(row, now) for row in rows]


def _location(row: tuple[Any, ...], now: float) -> EventLocation:
    service, listener, attempt, available_at, is_leased, *columns = row
    state = LocationState.WAITING
    if available_at > now:
        state = LocationState.IN_FLIGHT if is_leased else LocationState.DELAYED
    return EventLocation(
        message=message_from(columns),
        service_name=service,
        listener_name=listener,
        state=state,
        attempt=attempt,
        until=datetime.fromtimestamp(available_at, UTC) if available_at > now else None,
    )


def _key(queue: QueueAddress) -> tuple[str, str, str]:
    return queue.service_name, queue.listener_name, queue.api_name
