"""The names of exchanges and queues at the broker."""

from __future__ import annotations

import hashlib

from lightbus.transport.records import QueueAddress

# The names of APIs, services and listeners are never empty, so the names of their own objects never
# begin with `lightbus::`.
DELAY_EXCHANGE = "lightbus::delay"
RETURN_EXCHANGE = "lightbus::return"
UNROUTED = "lightbus::unrouted"
MIGRATION_LOCK = "lightbus::migration-lock"

# The names of an earlier version. A listener's queue may still hold events that came through its
# return exchange.
OLD_DELAY_EXCHANGE = "lightbus:delay"
OLD_RETURN_EXCHANGE = "lightbus:return"
OLD_UNROUTED = "lightbus:unrouted"

# The name of a service, listener or API cannot contain "#".
_TEMPORARY = "#migrating"


def api_exchange(api_name: str) -> str:
    """Return the exchange to which the events of an API are sent."""
    return f"lightbus:{api_name}"


def is_of_copies(exchange: str | None, api_name: str) -> bool:
    """Return whether an exchange delivers only copies by the bus to listeners of an API.

    Programs that only fire events need no permission to publish to these exchanges.
    """
    if exchange == OLD_RETURN_EXCHANGE:
        return exchange != api_exchange(api_name)
    return exchange in ("", RETURN_EXCHANGE)


def listener_queue(queue: QueueAddress) -> str:
    """Return the name of a listener's queue."""
    return queue_of(queue.service_name, queue.listener_name, queue.api_name)


def queue_of(service_name: str, listener_name: str, api_name: str) -> str:
    """Return the queue of a listener."""
    return f"lightbus:{service_name}:{listener_name}:{api_name}"


def listener_and_api(queue: str, service_name: str) -> tuple[str, str] | None:
    """Return the listener and the API of a queue; None if no listener of the service owns it."""
    prefix = f"lightbus:{service_name}:"
    listener_name, colon, api_name = queue.removeprefix(prefix).partition(":")
    is_of_listener = queue.startswith(prefix) and colon and _TEMPORARY not in queue
    return (listener_name, api_name) if is_of_listener else None


def dead_letter_queue(service_name: str) -> str:
    """Return the queue for the dead letters of a service."""
    return f"lightbus:{service_name}:dead"


def reading_lock(service_name: str) -> str:
    """Return the lock that a reader of a service's dead letters holds."""
    return f"lightbus::reading:{service_name}"


def temporary_queue(queue: str) -> str:
    """Return the queue that replaces another while a migration recreates it."""
    return queue + _TEMPORARY


def delay_queue(milliseconds: int) -> str:
    """Return the queue that delays events by that long."""
    return f"lightbus::delay:{milliseconds}"


def last_attempt_exchange(queue: str, event_id: str) -> str:
    """Return the exchange that records that the last attempt at an event has started.

    Args:
        queue: The listener's queue.
        event_id: The event's id.
    """
    digest = hashlib.sha256(f"{queue}:{event_id}".encode()).hexdigest()
    return f"lightbus::last-attempt:{digest[:40]}"


def old_name(name: str) -> str:
    """Return the old name of one of the bus's own objects."""
    return name.replace("lightbus::", "lightbus:", 1)


def in_milliseconds(seconds: float) -> int:
    """Return `seconds` as the whole milliseconds, at least 1, that name a delay queue."""
    return max(round(seconds * 1000), 1)
