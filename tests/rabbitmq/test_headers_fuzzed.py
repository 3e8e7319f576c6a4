"""Events with random headers and bodies become dead letters, and affect no other event."""

from __future__ import annotations

import contextlib
import struct
from datetime import datetime
from typing import Any

import aiormq
import pytest
from aiormq.exceptions import AMQPError
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic

from lightbus import Bus, OnError, Worker
from lightbus.exceptions import InvalidEventListener, UndecodableEvent, UnfitEvent
from lightbus.handling.signatures import plan_call
from lightbus.message import EventMessage
from rabbitmq.random_messages import JSON, KNOWN, TEXT, short
from rabbitmq_support import CONNECTION_LOST, DEAD, QUEUE, Broker, MakeBus, Seen, transport_of


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
