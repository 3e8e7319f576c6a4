"""Messages with random properties and bodies become events or errors, and affect nothing else."""

from __future__ import annotations

import contextlib
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus import Bus, OnError, Worker
from lightbus.exceptions import InvalidEventListener, UndecodableEvent, UnfitEvent
from lightbus.handling.signatures import plan_call
from lightbus.message import EventMessage
from lightbus.transport.failure import Failure
from lightbus_rabbitmq import copies, dead_letter_headers, headers
from rabbitmq_support import CONNECTION_LOST, DEAD, QUEUE, Broker, MakeBus, Seen, transport_of

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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PROPERTIES, SHORT, EXCHANGES)
def test_an_event_with_any_properties_can_be_handled_and_copied(
    properties: Basic.Properties, routing_key: str | None, exchange: str
) -> None:
    delivered = delivered_with(properties, routing_key=routing_key or "", exchange=exchange)

    message = headers.message_of(delivered, "auth")
    assert message.id
    assert message.version >= 0
    assert message.fired_at.tzinfo is UTC
    attempt = headers.attempt_of(delivered, "auth")
    assert attempt >= 1
    first = headers.first_failed_at(delivered, "auth")
    assert first is None or first.tzinfo is UTC

    story = dead_letter_headers.failure_headers(
        failure_at(attempt), message, queue="lightbus:shop:welcome:auth", frame_size=FRAME_SIZE
    )
    copy = copies.copy_properties(delivered, message, frame_size=FRAME_SIZE, **story)
    assert len(copy.marshal()) + REST_OF_FRAME <= FRAME_SIZE

    read, failure = dead_letter_headers.dead_letter_of(
        delivered_with(copy, routing_key="lightbus:shop:dead")
    )
    assert read.id == message.id
    assert failure.attempt == attempt
    assert failure.error_type == "builtins.ValueError"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PROPERTIES, SHORT)
def test_any_message_in_the_dead_letter_queue_can_be_read(
    properties: Basic.Properties, routing_key: str | None
) -> None:
    message, failure = dead_letter_headers.dead_letter_of(
        delivered_with(properties, routing_key=routing_key or "")
    )

    assert message.id
    assert failure.attempt >= 1
    assert failure.failed_at.astimezone().isoformat()


@pytest.mark.parametrize("depth", [60, 400, 480, 490, 2_000])
def test_an_event_with_headers_of_any_depth_can_be_copied(depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    delivered = delivered_with(Basic.Properties(message_id="id", headers={"theirs": deep}))
    message = headers.message_of(delivered, "auth")

    copy = copies.copy_properties(delivered, message, frame_size=131_072)

    assert copy.headers is not None
    assert copy.headers["lightbus-headers-dropped"] is True


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


def by_name(username: str = "", **others: Any) -> None: ...
def by_position(username: Any, /, event: Any = None) -> None: ...
def with_message(event: EventMessage, **fields: Any) -> None: ...
def typed(username: int, *, email: list[datetime] | None = None) -> None: ...


@settings(max_examples=300, deadline=None, derandomize=True)
@given(JSON)
@pytest.mark.parametrize("handler", [by_name, by_position, with_message, typed])
def test_a_handler_is_called_with_any_body_or_the_body_is_refused(
    handler: Any, body: bytes
) -> None:
    message = EventMessage(api_name="auth", event_name="user_created", body=body)
    plan = plan_call(handler, message.canonical_name, None)

    with contextlib.suppress(UndecodableEvent, UnfitEvent, InvalidEventListener):
        args, kwargs = plan.arguments(message)
        handler(*args, **kwargs)


class WithHeaders(Basic.Properties):
    """Properties with only headers, encoded by the test."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self.table = table

    def marshal(self) -> bytes:
        """Return the flag for headers, and the headers (AMQP 0-9-1, section 4.2.6.1)."""
        return struct.pack(">H", 1 << 13) + sized(self.table)


def sized(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def field_of(name: bytes, value: bytes) -> bytes:
    return struct.pack(">B", len(name)) + name + value


def deep(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"A" + sized(value)
    return value


# Encoded fields: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3
RAW_VALUES = st.recursive(
    st.just(b"V")
    | st.tuples(st.sampled_from([b"t", b"b"]), st.binary(min_size=1, max_size=1)).map(b"".join)
    | st.tuples(st.just(b"s"), st.binary(min_size=2, max_size=2)).map(b"".join)
    | st.tuples(st.sampled_from([b"I", b"f"]), st.binary(min_size=4, max_size=4)).map(b"".join)
    | st.tuples(st.just(b"D"), st.binary(min_size=5, max_size=5)).map(b"".join)
    | st.tuples(st.sampled_from([b"l", b"d"]), st.binary(min_size=8, max_size=8)).map(b"".join)
    | st.integers(0, 2**37).map(lambda seconds: b"T" + struct.pack(">Q", seconds))
    | st.tuples(st.sampled_from([b"S", b"x"]), st.binary(max_size=30).map(sized)).map(b"".join),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: b"A" + sized(b"".join(items)))
        | st.lists(inner, max_size=3).map(
            lambda items: (
                b"F" + sized(b"".join(field_of(b"k%d" % n, v) for n, v in enumerate(items)))
            )
        )
    ),
    max_leaves=6,
)
# The broker refuses an invalid CC.
RAW_NAMES = st.sampled_from([name for name in KNOWN if name != "CC"]) | TEXT.map(short)
RAW_TABLES = st.lists(st.tuples(RAW_NAMES, RAW_VALUES), max_size=6).map(
    lambda fields: b"".join(field_of(name.encode(), value) for name, value in fields)
)


def some_hostile(count: int) -> list[tuple[bytes, bytes]]:
    """Return tables of headers, and bodies."""
    found: list[tuple[bytes, bytes]] = []

    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    @given(RAW_TABLES, st.binary() | JSON)
    def collect(table: bytes, body: bytes) -> None:
        found.append((table, body))

    collect()
    return found[:count]


def refusing(bus: Bus) -> Seen[str]:
    """Listen with a handler that fails at all events except good ones; return the good ones."""
    seen = Seen[str]()

    async def welcome(event: EventMessage, **fields: Any) -> None:
        if fields.get("username") != "good":
            raise ValueError(fields)
        await seen.add(event.id)

    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG, concurrency=4
    )
    return seen


async def test_hostile_events_are_dead_lettered_and_a_later_good_one_is_handled(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    seen = refusing(bus)
    hostile = some_hostile(100)
    async with Worker(bus) as worker:
        for table, body in hostile:
            await broker.put_raw("lightbus:auth", "user_created", body, WithHeaders(table))
        good = await bus.auth.user_created.fire_async(username="good", email="e")

        assert await seen.wait_for(1) == [good.id]
        await broker.wait_for_count(DEAD, len(hostile))
        assert worker.failure is None
    letters = [letter async for letter in transport_of(bus).dead_letters("shop")]
    assert sorted(letter.message.body for letter in letters) == sorted(body for _, body in hostile)


@pytest.mark.parametrize(
    ("routing_key", "properties"),
    [
        ("x" * 228 + "." + QUEUE, Basic.Properties()),
        ("x." + QUEUE, Basic.Properties(message_type="auth." + "x" * 250)),
        ("x." + QUEUE, WithHeaders(field_of(b"when", b"T" + b"\xff" * 8))),
        ("x." + QUEUE, WithHeaders(field_of(b"deep", deep(5_000)))),
    ],
    ids=["long routing key", "long type", "time out of range", "deep header"],
)
async def test_an_event_with_names_and_headers_at_their_limits_can_be_dead_lettered(
    make_bus: MakeBus,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
    routing_key: str,
    properties: Basic.Properties,
) -> None:
    bus = make_bus()
    seen = refusing(bus)
    async with Worker(bus):
        await broker.put_raw("lightbus::return", routing_key, b"{}", properties)
        good = await bus.auth.user_created.fire_async(username="good", email="e")

        assert await seen.wait_for(1) == [good.id]
        await broker.wait_for_count(DEAD, 1)
        assert CONNECTION_LOST not in caplog.text

        letters = [letter async for letter in transport_of(bus).dead_letters("shop")]
        assert [letter.message.body for letter in letters] == [b"{}"]


async def test_malformed_headers_are_refused_by_the_broker(
    make_bus: MakeBus, rabbitmq_url: str
) -> None:
    bus = make_bus()
    seen = refusing(bus)
    async with Worker(bus):
        stranger = await aiormq.connect(rabbitmq_url)
        malformed = WithHeaders(b"\x05ab" + b"?" * 20)
        with pytest.raises(AMQPError):
            await Broker(await stranger.channel()).put_raw(
                "lightbus:auth", "user_created", b"{}", malformed
            )
        good = await bus.auth.user_created.fire_async(username="good", email="e")

        assert await seen.wait_for(1) == [good.id]
        await stranger.close()
