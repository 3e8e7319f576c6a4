"""Builds the properties of copies of events: for retries, dead letters and migrations."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from lightbus.message import EventMessage
from lightbus_rabbitmq import headers

# The driver encodes headers recursively, and fails at headers that are nested too deeply.
_MAX_DEPTH = 50

# All properties are in one frame. It has this many other bytes: its header and end, the class, the
# weight, and the size of the body (AMQP 0-9-1, sections 4.2.3 and 4.2.6.1).
_FRAME_OVERHEAD = 8 + 12


def copy_properties(
    delivered: DeliveredMessage, message: EventMessage, *, frame_size: int, **added: Any
) -> Basic.Properties:
    """Return the properties for a copy of an event, without the headers that queues have added.

    If the headers of the sender do not fit into a frame, or the driver cannot encode them, the copy
    has only the headers of the event.

    Args:
        delivered: The delivery of the event.
        message: The event.
        frame_size: The size of a frame, in bytes.
        added: Headers to add.
    """
    original = delivered.header.properties
    properties = Basic.Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        correlation_id=original.correlation_id,
        delivery_mode=headers.PERSISTENT,
        message_id=message.id,
        message_type=headers.type_of(message),
        timestamp=message.fired_at,
        app_id=original.app_id,
        headers={**_kept_headers(delivered, message.api_name), **added},
    )
    if not _can_be_sent(properties, frame_size):
        return headers.properties_of(message, **added, **{headers.HEADERS_DROPPED: True})
    return properties


def move_properties(delivered: DeliveredMessage, *, frame_size: int) -> Basic.Properties:
    """Return the properties for a message that a migration moves to a queue without a listener.

    They are the same, without the counts of its queue, and without properties that would route the
    message elsewhere or make it expire.

    Args:
        delivered: The delivery of the message.
        frame_size: The size of a frame, in bytes.
    """
    original = delivered.header.properties
    kept_headers = {
        name: value
        for name, value in headers.headers_of(delivered).items()
        if name not in ("CC", "BCC", "x-delivery-count", "x-acquired-count")
    }
    properties = Basic.Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        correlation_id=original.correlation_id,
        delivery_mode=headers.PERSISTENT,
        message_id=original.message_id or str(uuid.uuid4()),
        message_type=original.message_type,
        timestamp=original.timestamp,
        app_id=original.app_id,
        headers=kept_headers,
    )
    essential = {
        name: value
        for name, value in kept_headers.items()
        if name.startswith(("lightbus-", "x-death"))
    }
    for kept in (essential, {}):
        if not _can_be_sent(properties, frame_size):
            properties.headers = {**kept, headers.HEADERS_DROPPED: True}
    return properties


def _can_be_sent(properties: Basic.Properties, frame_size: int) -> bool:
    if _is_deeper_than(_MAX_DEPTH, properties.headers):
        return False
    try:
        return len(properties.marshal()) + _FRAME_OVERHEAD <= frame_size
    except (ArithmeticError, TypeError, ValueError, struct.error):
        return False


def _is_deeper_than(levels: int, value: Any) -> bool:
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    return any(levels == 0 or _is_deeper_than(levels - 1, item) for item in inner)


def _kept_headers(delivered: DeliveredMessage, api_name: str) -> dict[str, Any]:
    """Return the headers of a delivery that a copy of the event keeps."""
    # Lightbus trusts its own headers on copies. On other events, the sender may have set them.
    is_copy = headers.is_copy(delivered, api_name)
    return {
        name: value
        for name, value in headers.headers_of(delivered).items()
        if not _is_added_by_queue(name)
        and (is_copy or name == headers.VERSION or not name.startswith(headers.OWN_PREFIX))
    }


def _is_added_by_queue(name: str) -> bool:
    # Such as x-death, x-first-death-queue, x-last-death-reason, x-delivery-count, x-acquired-count.
    # CC and BCC are the sender's: they route the event to more queues, which need no copy.
    return name in ("CC", "BCC") or (
        name.startswith("x-") and ("death" in name or name.endswith("-count"))
    )
