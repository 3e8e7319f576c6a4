"""Writes a failure to the headers of a dead letter, and reads dead letters."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
from aiormq.abc import DeliveredMessage

from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus_rabbitmq import headers, names

# The parts of the name of a listener's queue
_QUEUE_NAME_PARTS = 4

# The reasons for which RabbitMQ itself dead-letters an event, as in the header x-death
_NO_REASON = "unknown"
_REASONS = {
    _NO_REASON: "The reason was not recorded.",
    "delivery_limit": "The event was redelivered too often.",
    "expired": "The event waited in its queue for longer than a policy, or its sender, allowed.",
    "maxlen": "The queue of the event was longer than a policy allowed.",
    "rejected": "Another AMQP client rejected the event.",
}


def failure_headers(
    failure: Failure,
    message: EventMessage,
    *,
    queue: str,
    frame_size: int,
) -> dict[str, Any]:
    """Return the headers that describe a failure.

    Long values are cut, so that the headers take less than half of a frame.

    Args:
        failure: The failure.
        message: The event.
        queue: The queue of the listener that failed; empty if there is none.
        frame_size: The size of a frame, in bytes.
    """
    return {
        "lightbus-error-type": _cut(failure.error_type, frame_size // 32),
        "lightbus-error-message": _cut(failure.error_message, frame_size // 32),
        "lightbus-traceback": _cut(failure.traceback, frame_size // 3),
        "lightbus-service": failure.service_name,
        "lightbus-process": failure.process_name,
        "lightbus-host": failure.hostname,
        "lightbus-pid": failure.pid,
        "lightbus-listener": failure.listener,
        "lightbus-api": message.api_name,
        "lightbus-event": message.event_name,
        "lightbus-queue": queue,
        headers.ATTEMPT: failure.attempt,
        headers.FIRST_FAILED_AT: failure.first_failed_at.isoformat(),
        "lightbus-last-failed-at": failure.failed_at.isoformat(),
    }


def dead_letter_of(delivered: DeliveredMessage) -> tuple[EventMessage, Failure]:
    """Return the event of a dead letter, and the failure that its headers describe.

    The broker also dead-letters events itself, such as those that were redelivered too often. Their
    headers describe no failure.
    """
    found = headers.headers_of(delivered)
    death = _last_death(delivered)
    if death is not None:
        return _dead_letter_of_the_broker(delivered, death)

    def text(name: str, default: str = "") -> str:
        value = found.get(name)
        return value if isinstance(value, str) and value else default

    failed_at = headers.time_in(found.get("lightbus-last-failed-at")) or _sent_time(delivered)
    failure = Failure(
        error_type=text("lightbus-error-type", f"rabbitmq.{_NO_REASON}"),
        error_message=text("lightbus-error-message", _REASONS[_NO_REASON]),
        traceback=text("lightbus-traceback"),
        failed_at=failed_at,
        first_failed_at=headers.time_in(found.get(headers.FIRST_FAILED_AT)) or failed_at,
        listener=text("lightbus-listener"),
        attempt=headers.whole_number(found.get(headers.ATTEMPT), default=1),
        service_name=text("lightbus-service"),
        process_name=text("lightbus-process"),
        hostname=text("lightbus-host"),
        pid=headers.whole_number(found.get("lightbus-pid"), default=0),
    )
    return _dead_message(delivered, text("lightbus-api")), failure


def _dead_letter_of_the_broker(
    delivered: DeliveredMessage, death: headers.Death
) -> tuple[EventMessage, Failure]:
    # The headers are those that the event had in the listener's queue. A sender may have set them.
    parts = death.queue.split(":")
    _, service_name, listener, api_name = (
        parts if len(parts) == _QUEUE_NAME_PARTS else [""] * _QUEUE_NAME_PARTS
    )
    is_copy = names.is_of_copies(death.exchange, api_name)
    trusted = headers.headers_of(delivered) if is_copy else {}
    failure = Failure(
        error_type=f"rabbitmq.{death.reason}",
        error_message=_REASONS[death.reason],
        traceback="",
        failed_at=death.time,
        first_failed_at=headers.time_in(trusted.get(headers.FIRST_FAILED_AT)) or death.time,
        listener=listener,
        attempt=headers.whole_number(trusted.get(headers.ATTEMPT), default=1),
        service_name=service_name,
        process_name="",
        hostname="",
        pid=0,
    )
    return _dead_message(delivered, api_name, death), failure


def _dead_message(
    delivered: DeliveredMessage, api_name: str, death: headers.Death | None = None
) -> EventMessage:
    message = headers.message_of(delivered, api_name, death=death)
    if delivered.header.properties.message_id:
        return message
    # Other programs may send events without an id. This id is the same each time that the dead
    # letter is read, so that commands can name it.
    content = f"{death} {message.event_name} {message.body!r}"
    return attrs.evolve(message, id=str(uuid.uuid5(uuid.NAMESPACE_OID, content)))


def _sent_time(delivered: DeliveredMessage) -> datetime:
    """Return the time in the properties; without one, the same time at each reading."""
    fired_at = delivered.header.properties.timestamp
    return fired_at.astimezone(UTC) if isinstance(fired_at, datetime) else headers.FIRST_TIME


def _last_death(delivered: DeliveredMessage) -> headers.Death | None:
    """Return why the broker dead-lettered the event; None if the broker did not."""
    deaths = headers.headers_of(delivered).get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(last, Mapping):
        return None
    routing_keys, time = last.get("routing-keys"), last.get("time")
    reason = _text(last.get("reason"))
    return headers.Death(
        queue=_text(last.get("queue")),
        exchange=_text(last.get("exchange")),
        routing_key=_text(routing_keys[0])
        if isinstance(routing_keys, list) and routing_keys
        else "",
        time=time.astimezone(UTC) if isinstance(time, datetime) else _sent_time(delivered),
        reason=reason if reason in _REASONS else _NO_REASON,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _cut(text: str, max_bytes: int) -> str:
    # The end of a traceback is the most useful part. UTF-8 cannot encode lone surrogates, so they
    # are replaced.
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return "[cut] ..." + encoded[-max_bytes:].decode("utf-8", "ignore")
