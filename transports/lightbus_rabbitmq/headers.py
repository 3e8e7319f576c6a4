"""Converts events to AMQP properties and back, and decides which properties to trust.

Incoming properties are hostile until they are read here: any property may be missing or of any
type.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import attrs
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from lightbus.message import EventMessage
from lightbus_rabbitmq import names

EVENT_ID = "cloudEvents:id"
EVENT_TIME = "cloudEvents:time"
ATTEMPT = "lightbus-attempt"
FIRST_FAILED_AT = "lightbus-first-failed-at"
_SPECIFICATION = "cloudEvents:specversion"
_TYPE = "cloudEvents:type"
_SOURCE = "cloudEvents:source"
_VERSION = "lightbus-api-version"
TRACEPARENT = "traceparent"
_OWN_PREFIX = "lightbus-"
_FIRED_WITH = {_SPECIFICATION, EVENT_ID, _TYPE, _SOURCE, EVENT_TIME, _VERSION}
_HEADERS_DROPPED = "lightbus-headers-dropped"
_PERSISTENT = 2

# The version of RabbitMQ from which on a redelivery says how often the event was delivered before,
# and so which of these deliveries counted.
_FIRST_WITH_ACQUISITIONS = (4, 3)

# Of a foreign sender, anything may come. (W3C Trace Context, section 3.2.2)
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# An AMQP timestamp has no sign (AMQP 0-9-1, section 4.2.5.4).
FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)

# An AMQP short string (AMQP 0-9-1, section 4.2.5.3). A foreign routing key makes longer names.
_LONGEST_NAME = 255

# The driver reads and writes headers by recursion, and has less of the stack when it writes.
_DEEPEST = 50

# All properties travel in one frame. This is what it holds beside them: its own head and end, and
# the class, the weight and the size of the body (AMQP 0-9-1, sections 4.2.3 and 4.2.6.1).
_REST_OF_FRAME = 8 + 12


@attrs.frozen
class Death:
    """How the broker itself made an event a dead letter.

    Attributes:
        queue: The queue that it was in.
        exchange: The exchange that brought it there.
        routing_key: The routing key that it came with.
        time: When it died.
        reason: Why, in the broker's own word.
    """

    queue: str
    exchange: str
    routing_key: str
    time: datetime
    reason: str


def properties_of(message: EventMessage, **added: Any) -> Basic.Properties:
    """Return the properties that an event is sent with, with `added` headers.

    The headers are the attributes of a CloudEvents 1.0 event in the AMQP binding's binary mode.
    """
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        message_type=_name_of(message),
        timestamp=message.fired_at,
        app_id=message.service_name,
        headers={
            _SPECIFICATION: "1.0",
            EVENT_ID: message.id,
            _TYPE: message.canonical_name,
            _SOURCE: f"/{quote(message.service_name)}",
            EVENT_TIME: exact_time(message.fired_at),
            _VERSION: message.version,
            **({TRACEPARENT: message.traceparent} if message.traceparent else {}),
            **added,
        },
    )


def exact_time(time: datetime) -> str:
    """Return `time` as it stands in headers, with as many digits whatever it is (RFC 3339)."""
    return time.isoformat(timespec="microseconds")


def is_as_fired(properties: Basic.Properties) -> bool:
    """Return whether these have the headers of `properties_of`, and no others."""
    found = properties.headers
    return isinstance(found, dict) and found.keys() - {TRACEPARENT} == _FIRED_WITH


def of_another_event(
    properties: Basic.Properties,
    event_id: str,
    time: str,
    timestamp: datetime,
    traceparent: str = "",
) -> Basic.Properties:
    """Return the properties of another event of the same kind as that of `properties`.

    Args:
        properties: As they were fired.
        event_id: The other's id.
        time: The other's `exact_time`.
        timestamp: The same, in whole seconds.
        traceparent: The other's, where events of this kind have one.
    """
    return Basic.Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers={
            **(properties.headers or {}),
            EVENT_ID: event_id,
            EVENT_TIME: time,
            **({TRACEPARENT: traceparent} if traceparent else {}),
        },
        delivery_mode=properties.delivery_mode,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=properties.expiration,
        message_id=event_id,
        timestamp=timestamp,
        message_type=properties.message_type,
        user_id=properties.user_id,
        app_id=properties.app_id,
        cluster_id=properties.cluster_id,
    )


def message_of(
    delivered: DeliveredMessage, api_name: str, *, death: Death | None = None
) -> EventMessage:
    """Return the event that came to a listener of the API.

    A foreign sender need only give a body and, as the routing key, the event's name. Without a
    `message_id`, each delivery gets an id of its own.

    Args:
        delivered: The event.
        api_name: The API.
        death: Where the broker made a dead letter of it, how it had come to the listener.
    """
    properties = delivered.header.properties
    headers = headers_of(delivered)
    came: Any = delivered.delivery if death is None else death
    event_name = came.routing_key or ""
    if names.is_of_copies(came.exchange, api_name):
        event_name = _name_in_type(properties.message_type, api_name) or event_name
    return EventMessage(
        id=properties.message_id or str(uuid.uuid4()),
        api_name=api_name,
        event_name=event_name,
        body=delivered.body,
        version=whole_number(headers.get(_VERSION), default=1),
        fired_at=_fired_at(headers, properties),
        service_name=properties.app_id or "",
        traceparent=_traceparent(headers[TRACEPARENT]) if TRACEPARENT in headers else "",
    )


def _name_in_type(message_type: str | None, api_name: str) -> str:
    # The routing key leads a copy to its listener, so its type names the event. On other events, a
    # sender may set any type: the broker checks its permissions for the routing key alone.
    prefix = f"{api_name}."
    is_typed = isinstance(message_type, str) and message_type.startswith(prefix)
    return str(message_type)[len(prefix) :] if is_typed else ""


def _is_copy(delivered: DeliveredMessage, api_name: str) -> bool:
    return names.is_of_copies(delivered.exchange, api_name)


def attempt_of(delivered: DeliveredMessage, api_name: str) -> int:
    """Return the attempt that the sender of `delivered` meant it for, counted from 1.

    An event that is not a copy by the bus is at its first.
    """
    if not _is_copy(delivered, api_name):
        return 1
    return whole_number(headers_of(delivered).get(ATTEMPT), default=1)


def first_failed_at(delivered: DeliveredMessage, api_name: str) -> datetime | None:
    """Return when an attempt at the event failed first; None where none did."""
    if not _is_copy(delivered, api_name):
        return None
    return time_in(headers_of(delivered).get(FIRST_FAILED_AT))


def returns_of(delivered: DeliveredMessage, broker: Mapping[str, Any]) -> int:
    """Return how often the event was returned to the queue.

    Args:
        delivered: The event.
        broker: The properties with which the broker introduced itself.
    """
    # RabbitMQ 4 passes a sender's own header on until it has something to count.
    if not delivered.redelivered:
        return 0
    found = headers_of(delivered)
    count = whole_number(found.get("x-delivery-count"), default=0)
    if _counts_acquisitions(broker):
        count = min(count, whole_number(found.get("x-acquired-count"), default=count))
    return count


def _counts_acquisitions(broker: Mapping[str, Any]) -> bool:
    # Older versions pass a sender's own header on.
    version = re.match(r"(\d+)\.(\d+)", str(broker.get("version")))
    return version is not None and (int(version[1]), int(version[2])) >= _FIRST_WITH_ACQUISITIONS


def headers_of(delivered: DeliveredMessage) -> Mapping[str, Any]:
    """Return the headers of `delivered`."""
    headers = delivered.header.properties.headers
    return headers if isinstance(headers, Mapping) else {}


def copied(
    delivered: DeliveredMessage, message: EventMessage, *, frame_size: int, **added: Any
) -> Basic.Properties:
    """Return the properties for a copy of `delivered`, without what its queues noted on it.

    Where what its sender gave cannot be sent again, because it does not fit beside `added` into a
    frame of `frame_size` bytes, or holds what the driver can read but not write, all that describes
    no event is dropped.

    `message` names the event, which the copy's routing key does not.
    """
    original = delivered.header.properties
    properties = Basic.Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        correlation_id=original.correlation_id,
        delivery_mode=_PERSISTENT,
        message_id=message.id,
        message_type=_name_of(message),
        timestamp=message.fired_at,
        app_id=original.app_id,
        headers={**_kept_headers(delivered, message.api_name), **added},
    )
    if not _can_be_sent(properties, frame_size):
        return properties_of(message, **added, **{_HEADERS_DROPPED: True})
    return properties


def carried_on(delivered: DeliveredMessage, *, frame_size: int) -> Basic.Properties:
    """Return the properties for a message that is put back as it is into a queue of no listener.

    Only what its queue counted is left out, and what would send it elsewhere, or end it.
    """
    original = delivered.header.properties
    headers = {
        name: value
        for name, value in headers_of(delivered).items()
        if name not in ("CC", "BCC", "x-delivery-count", "x-acquired-count")
    }
    properties = Basic.Properties(
        content_type=original.content_type,
        content_encoding=original.content_encoding,
        correlation_id=original.correlation_id,
        delivery_mode=_PERSISTENT,
        message_id=original.message_id or str(uuid.uuid4()),
        message_type=original.message_type,
        timestamp=original.timestamp,
        app_id=original.app_id,
        headers=headers,
    )
    story = {name: headers[name] for name in headers if name.startswith(("lightbus-", "x-death"))}
    for kept in (story, {}):
        if not _can_be_sent(properties, frame_size):
            properties.headers = {**kept, _HEADERS_DROPPED: True}
    return properties


def dropped() -> Basic.Properties:
    """Return what stands for properties that cannot be decoded."""
    return Basic.Properties(headers={_HEADERS_DROPPED: True})


def _can_be_sent(properties: Basic.Properties, frame_size: int) -> bool:
    if _is_deeper_than(_DEEPEST, properties.headers):
        return False
    try:
        return len(properties.marshal()) + _REST_OF_FRAME <= frame_size
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
    """Return the headers of `delivered` that belong on a copy of it."""
    # The bus trusts these headers on its own copies. Here, a sender may have set them.
    are_own = _is_copy(delivered, api_name)
    return {
        name: value
        for name, value in headers_of(delivered).items()
        if not _is_note(name) and (are_own or name == _VERSION or not name.startswith(_OWN_PREFIX))
    }


def _is_note(name: str) -> bool:
    # x-death, x-first-death-queue, x-last-death-reason, x-delivery-count, x-acquired-count ... With
    # CC, the sender named further queues, and a copy is not for those.
    return name in ("CC", "BCC") or (
        name.startswith("x-") and ("death" in name or name.endswith("-count"))
    )


def _name_of(message: EventMessage) -> str:
    return message.canonical_name.encode()[:_LONGEST_NAME].decode("utf-8", "ignore")


def _traceparent(value: Any) -> str:
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else ""


def whole_number(value: Any, *, default: int) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else default


def _fired_at(headers: Mapping[str, Any], properties: Basic.Properties) -> datetime:
    # The header is exact; the property knows whole seconds only.
    if exact := time_in(headers.get(EVENT_TIME)):
        return exact
    if isinstance(properties.timestamp, datetime):
        return properties.timestamp.astimezone(UTC)
    return datetime.now(UTC)


def time_in(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return time if time >= FIRST_TIME else None
