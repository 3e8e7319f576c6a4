"""What the exchanges and queues at the broker are called."""

from __future__ import annotations

import hashlib

from lightbus.transport.records import QueueAddress

# The names of APIs, services and listeners are never empty. So `lightbus::` cannot begin the name
# of any of their objects.
DELAY_EXCHANGE = "lightbus::delay"
RETURN_EXCHANGE = "lightbus::return"
UNROUTED = "lightbus::unrouted"
MIGRATION_LOCK = "lightbus::migration-lock"

# Their old names. Events that came through the old return exchange may still wait in a listener's
# queue.
OLD_DELAY_EXCHANGE = "lightbus:delay"
OLD_RETURN_EXCHANGE = "lightbus:return"
OLD_UNROUTED = "lightbus:unrouted"

# No name of a service, listener or API can hold the sign "#".
_TEMPORARY = "#migrating"


def api_exchange(api_name: str) -> str:
    """Return the exchange to which the events of an API are sent."""
    return f"lightbus:{api_name}"


def is_of_copies(exchange: str | None, api_name: str) -> bool:
    """Return whether messages that an exchange brings to a listener of an API are the bus's own
    copies.

    Programs that only fire events need no permission to send to these exchanges.
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
    """Return the names of the listener and the API that a queue is for; None where it is not for a
    listener of the service.
    """
    prefix = f"lightbus:{service_name}:"
    listener_name, colon, api_name = queue.removeprefix(prefix).partition(":")
    is_of_listener = queue.startswith(prefix) and colon and _TEMPORARY not in queue
    return (listener_name, api_name) if is_of_listener else None


def dead_letter_queue(service_name: str) -> str:
    """Return the queue that keeps the dead letters of a service."""
    return f"lightbus:{service_name}:dead"


def reading_lock(service_name: str) -> str:
    """Return the lock of those who read the dead letters of a service."""
    return f"lightbus::reading:{service_name}"


def temporary_queue(queue: str) -> str:
    """Return the queue that takes the place of another while that is made anew."""
    return queue + _TEMPORARY


def delay_queue(milliseconds: int) -> str:
    """Return the queue in which events wait for that long."""
    return f"lightbus::delay:{milliseconds}"


def last_attempt_exchange(queue: str, event_id: str) -> str:
    """Return the exchange that notes that the last attempt at an event of a listener's queue has
    started.

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
