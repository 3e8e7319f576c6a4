"""Strategies for messages that any program may send."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from aiormq.abc import DeliveredMessage
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus.transport.failure import Failure

# The smallest frame size that a broker may negotiate
FRAME_SIZE = 4096

# The size of the frame without the properties
REST_OF_FRAME = 20


def short(text: str) -> str:
    """Return `text`, cut to the 255 bytes of an AMQP short string."""
    return text.encode()[:255].decode(errors="ignore")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SHORT = st.none() | st.just("") | TEXT.map(short) | TEXT.map(lambda text: short(f"{text}x" * 300))
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001

# The values that the driver decodes from a table
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.builds(
        lambda raw, places: Decimal(raw).scaleb(-places), st.integers(0, 2**32), st.integers(0, 255)
    )
    | TIMES
    | TIMES.map(datetime.isoformat)
    | TEXT
    | st.binary()
    | st.binary().map(bytearray),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT.map(short), inner, max_size=3),
    max_leaves=5,
)
KNOWN = [
    "lightbus-attempt",
    "lightbus-first-failed-at",
    "lightbus-last-failed-at",
    "lightbus-api-version",
    "lightbus-error-type",
    "lightbus-api",
    "lightbus-pid",
    "cloudEvents:time",
    "x-delivery-count",
    "x-death",
    "CC",
]
DEATHS = st.lists(
    st.dictionaries(st.sampled_from(["queue", "time", "exchange", "routing-keys"]), VALUES),
    max_size=2,
)
EXCHANGES = st.sampled_from(["", "lightbus::return", "lightbus:return", "lightbus:auth"])
TABLES = st.none() | st.dictionaries(
    st.sampled_from(KNOWN) | TEXT.map(short), VALUES | DEATHS, max_size=6
)
PROPERTIES = st.builds(
    Basic.Properties,
    content_type=SHORT,
    content_encoding=SHORT,
    headers=TABLES,
    delivery_mode=st.none() | st.integers(1, 2),
    priority=st.none() | st.integers(0, 255),
    correlation_id=SHORT,
    reply_to=SHORT,
    message_id=SHORT,
    timestamp=st.none() | TIMES,
    message_type=SHORT | SHORT.map(lambda text: short(f"auth.{text}")),
    app_id=SHORT,
)


def delivered_with(
    properties: Basic.Properties,
    *,
    routing_key: str = "user_created",
    exchange: str = "",
    body: bytes = b"{}",
) -> DeliveredMessage:
    """Return a delivery like one of the driver."""
    return DeliveredMessage(
        delivery=Basic.Deliver("1", 1, exchange=exchange, routing_key=routing_key),
        header=ContentHeader(body_size=len(body), properties=properties),
        body=body,
        channel=None,  # type: ignore[arg-type] # none of what is tested here uses it
    )


def failure_at(attempt: int) -> Failure:
    return Failure.of(
        ValueError("no"), listener="welcome", attempt=attempt, service_name="shop", process_name="p"
    )


NUMBERS = st.integers(1, 6_000).map(lambda digits: b"9" * digits)
JSON = st.recursive(
    st.sampled_from([b"null", b"true", b"1e999", b"-1e-999", b'"\\ud800"', b'"\\u0000"', b"NaN"])
    | NUMBERS
    | st.binary(max_size=8)
    | TEXT.map(lambda text: b'"' + text.encode() + b'"'),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: b"[" + b",".join(items) + b"]")
        | st.lists(
            st.tuples(st.sampled_from([b'"username"', b'"event"', b'"self"', b'""']), inner)
        ).map(lambda items: b"{" + b",".join(name + b":" + value for name, value in items) + b"}")
    ),
    max_leaves=8,
)
