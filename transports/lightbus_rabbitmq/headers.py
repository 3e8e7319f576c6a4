"""Converts events to AMQP properties and back, and decides which properties to trust.

Any program may have sent an event. So any property of a delivery may be missing, or of any type.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
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
VERSION = "lightbus-api-version"
TRACEPARENT = "traceparent"
OWN_PREFIX = "lightbus-"
_EVENT_HEADERS = {_SPECIFICATION, EVENT_ID, _TYPE, _SOURCE, EVENT_TIME, VERSION}
HEADERS_DROPPED = "lightbus-headers-dropped"
PERSISTENT = 2

# From this version on, RabbitMQ also reports how often an event was delivered, in x-acquired-count.
_ACQUIRED_COUNT_SINCE = (4, 3)

# W3C Trace Context, section 3.2.2
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# AMQP timestamps are not negative (AMQP 0-9-1, section 4.2.5.4).
FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)

# The limit of an AMQP short string, in bytes (AMQP 0-9-1, section 4.2.5.3). With the routing key of
# another program, the name of an event can be longer.
_MAX_NAME_BYTES = 255


@attrs.frozen
class Death:
    """How the broker dead-lettered an event.

    Attributes:
        queue: The queue that the event was in.
        exchange: The exchange that routed the event to the queue.
        routing_key: The routing key of the event.
        time: When the event was dead-lettered.
        reason: The broker's word for the reason, such as "expired".
    """

    queue: str
    exchange: str
    routing_key: str
    time: datetime
    reason: str


def properties_of(message: EventMessage, **added: Any) -> Basic.Properties:
    """Return the properties of an event, with `added` headers.

    The other headers are the attributes of a CloudEvents 1.0 event, in the binary mode of the AMQP
    protocol binding.
    """
    return Basic.Properties(
        content_type="application/json",
        delivery_mode=PERSISTENT,
        message_id=message.id,
        message_type=type_of(message),
        timestamp=message.fired_at,
        app_id=message.service_name,
        headers={
            _SPECIFICATION: "1.0",
            EVENT_ID: message.id,
            _TYPE: message.canonical_name,
            _SOURCE: f"/{quote(message.service_name)}",
            EVENT_TIME: exact_time(message.fired_at),
            VERSION: message.version,
            **({TRACEPARENT: message.traceparent} if message.traceparent else {}),
            **added,
        },
    )


def exact_time(time: datetime) -> str:
    """Return `time` for a header, always with the same number of digits (RFC 3339)."""
    return time.isoformat(timespec="microseconds")


def has_event_headers_only(properties: Basic.Properties) -> bool:
    """Return whether the headers are those of `properties_of`, without added ones."""
    found = properties.headers
    return isinstance(found, dict) and found.keys() - {TRACEPARENT} == _EVENT_HEADERS


def properties_of_similar(
    properties: Basic.Properties,
    event_id: str,
    time: str,
    timestamp: datetime,
    traceparent: str = "",
) -> Basic.Properties:
    """Return the properties of an event that differs from another only in these values.

    Args:
        properties: The properties of the other event.
        event_id: The id.
        time: The time of firing, as `exact_time` returns it.
        timestamp: The time of firing, in whole seconds.
        traceparent: The traceparent; empty if the events have none.
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
    """Return the event of a delivery to a listener.

    Other programs need to send only a body, with the name of the event as the routing key. Without
    a `message_id`, each delivery gets a new id.

    Args:
        delivered: The delivery.
        api_name: The API of the listener.
        death: How the broker dead-lettered the event, if it did.
    """
    properties = delivered.header.properties
    headers = headers_of(delivered)
    routed: Any = delivered.delivery if death is None else death
    event_name = routed.routing_key or ""
    if names.is_of_copies(routed.exchange, api_name):
        event_name = _name_in_type(properties.message_type, api_name) or event_name
    return EventMessage(
        id=properties.message_id or str(uuid.uuid4()),
        api_name=api_name,
        event_name=event_name,
        body=delivered.body,
        version=whole_number(headers.get(VERSION), default=1),
        fired_at=_fired_at(headers, properties),
        service_name=properties.app_id or "",
        traceparent=_traceparent(headers[TRACEPARENT]) if TRACEPARENT in headers else "",
    )


def _name_in_type(message_type: str | None, api_name: str) -> str:
    # The routing key of a copy is the queue of its listener, so the type names the event. The type
    # of other events is not trusted: the broker checks permissions only for the routing key.
    prefix = f"{api_name}."
    is_typed = isinstance(message_type, str) and message_type.startswith(prefix)
    return str(message_type)[len(prefix) :] if is_typed else ""


def is_copy(delivered: DeliveredMessage, api_name: str) -> bool:
    """Return whether a delivery is a copy by Lightbus, whose headers are trusted."""
    return names.is_of_copies(delivered.exchange, api_name)


def attempt_of(delivered: DeliveredMessage, api_name: str) -> int:
    """Return the number of the attempt in the headers, from 1.

    An event that is not a copy by the bus is at its first attempt.
    """
    if not is_copy(delivered, api_name):
        return 1
    return whole_number(headers_of(delivered).get(ATTEMPT), default=1)


def first_failed_at(delivered: DeliveredMessage, api_name: str) -> datetime | None:
    """Return when an attempt at the event failed first; None if none failed."""
    if not is_copy(delivered, api_name):
        return None
    return time_in(headers_of(delivered).get(FIRST_FAILED_AT))


def redeliveries_of(delivered: DeliveredMessage, broker: Mapping[str, Any]) -> int:
    """Return how often the event was redelivered.

    Args:
        delivered: The delivery.
        broker: The server properties of the broker.
    """
    # At the first delivery, RabbitMQ 4 leaves a header of this name that the sender set.
    if not delivered.redelivered:
        return 0
    found = headers_of(delivered)
    count = whole_number(found.get("x-delivery-count"), default=0)
    if _counts_acquisitions(broker):
        count = min(count, whole_number(found.get("x-acquired-count"), default=count))
    return count


def _counts_acquisitions(broker: Mapping[str, Any]) -> bool:
    # Older versions leave a header of this name that the sender set.
    version = re.match(r"(\d+)\.(\d+)", str(broker.get("version")))
    return version is not None and (int(version[1]), int(version[2])) >= _ACQUIRED_COUNT_SINCE


def unreadable_properties() -> Basic.Properties:
    """Return the properties that replace ones that cannot be decoded."""
    return Basic.Properties(headers={HEADERS_DROPPED: True})


def headers_of(delivered: DeliveredMessage) -> Mapping[str, Any]:
    """Return the headers of a delivery."""
    headers = delivered.header.properties.headers
    return headers if isinstance(headers, Mapping) else {}


def type_of(message: EventMessage) -> str:
    """Return the property `type` of an event: its name, cut to the limit of AMQP."""
    return message.canonical_name.encode()[:_MAX_NAME_BYTES].decode("utf-8", "ignore")


def _traceparent(value: Any) -> str:
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else ""


def whole_number(value: Any, *, default: int) -> int:
    """Return a whole number that fits into 31 bits; `default` for any other value."""
    return value if type(value) is int and 0 <= value < 2**31 else default


def _fired_at(headers: Mapping[str, Any], properties: Basic.Properties) -> datetime:
    # The header is exact. The property has whole seconds.
    if exact := time_in(headers.get(EVENT_TIME)):
        return exact
    if isinstance(properties.timestamp, datetime):
        return properties.timestamp.astimezone(UTC)
    return datetime.now(UTC)


def time_in(value: Any) -> datetime | None:
    """Return the time in a header; None for any other value."""
    try:
        time = datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return time if time >= FIRST_TIME else None
