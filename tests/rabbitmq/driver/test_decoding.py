"""A template decodes a frame like the driver does."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus import EventMessage
from lightbus_rabbitmq import headers
from lightbus_rabbitmq.driver import decoding
from lightbus_rabbitmq.driver.decoding import Decoder, UnreadableHeader

START = datetime(2026, 1, 2, tzinfo=UTC)


def message(number: int, event_name: str, *, is_traced: bool = False) -> EventMessage:
    return EventMessage(
        api_name="auth",
        event_name=event_name,
        body=b"x" * number,
        id=f"6f9619ff-8b86-4011-b42d-00c04fc9{number:04}",
        fired_at=START + timedelta(microseconds=number * 1_234_567),
        service_name="shop",
        traceparent=f"00-{number:032x}-{number + 1:016x}-01" if is_traced else "",
    )


def header_of(event: EventMessage, **added: Any) -> bytes:
    properties = headers.properties_of(event, **added)
    return ContentHeader(properties=properties, body_size=len(event.body)).marshal()


@st.composite
def header_payloads(draw: st.DrawFn) -> bytes:
    """Headers of a few kinds; some have other ids or headers, or one damaged byte."""
    number = draw(st.integers(0, 9999))
    name = draw(st.sampled_from(["user_created", "user_deleted", "happened"]))
    event = message(number, name, is_traced=draw(st.booleans()))
    added: dict[str, Any] = draw(
        st.sampled_from(
            [
                {},
                {headers.EVENT_ID: "other"},
                {"lightbus-attempt": 2},
                {headers.TRACEPARENT: 3},
                {headers.TRACEPARENT: "another"},
            ]
        )
    )
    payload = bytearray(header_of(event, **added))
    if draw(st.booleans()):
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
    return bytes(payload)


@given(st.lists(header_payloads(), max_size=30))
def test_headers_are_decoded_as_the_driver_decodes_them(payloads: list[bytes]) -> None:
    decoder = Decoder()
    seen = [header_of(message(1, "user_created", is_traced=traced)) for traced in (False, True)]
    for payload in [*seen, *payloads]:
        header = decoder.header(payload)
        expected = ContentHeader()
        try:
            expected.unmarshal(payload)
        except (ValueError, struct.error):
            assert isinstance(header, UnreadableHeader)
        else:
            assert header.properties == expected.properties
        assert header.body_size == expected.body_size


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two", "three"]),
            st.integers(1, 2**63 - 1),
            st.booleans(),
            st.sampled_from(["user_created", "user_deleted", ""]),
        )
    )
)
def test_deliveries_are_decoded_as_the_driver_decodes_them(
    deliveries: list[tuple[str, int, bool, str]],
) -> None:
    decoder = Decoder()
    for consumer, tag, redelivered, routing_key in deliveries:
        sent = Basic.Deliver(consumer, tag, redelivered, "lightbus:auth", routing_key)
        payload = Basic.Deliver.index.to_bytes(4, "big") + sent.marshal()

        assert dict(decoder.delivery(payload)) == dict(sent)


@pytest.fixture
def decoded_by_driver(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The headers that the driver decodes during the test."""
    decoded: list[bytes] = []
    decode_header = decoding.decode_header

    def decode_and_note(payload: bytes) -> ContentHeader:
        decoded.append(payload)
        return decode_header(payload)

    monkeypatch.setattr(decoding, "decode_header", decode_and_note)
    return decoded


def test_the_driver_decodes_one_header_of_each_kind(decoded_by_driver: list[bytes]) -> None:
    decoder = Decoder()
    first = [header_of(message(1, name)) for name in ("user_created", "user_deleted")]
    others = [header_of(message(2, name)) for name in ("user_created", "user_deleted")]
    for payload in [*first, *others]:
        decoder.header(payload)

    assert decoded_by_driver == first


def test_a_limited_number_of_templates_is_kept(decoded_by_driver: list[bytes]) -> None:
    decoder = Decoder()
    payloads = [header_of(message(1, "x" * (number % 100) + f"{number}")) for number in range(1000)]
    for payload in payloads:
        decoder.header(payload)
    decoded_by_driver.clear()
    for payload in payloads[:500]:
        decoder.header(payload)

    assert decoded_by_driver == payloads[:500]


def nested(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"F" + struct.pack(">I", len(value) + 2) + b"\x01a" + value
    return value


def test_properties_that_can_be_decoded_and_not_encoded_are_decoded() -> None:
    decoder = Decoder()
    name = b"\x12cloudEvents:source"
    payload = header_of(message(1, "user_created"))
    begin = payload.index(name)
    end = payload.index(b"\x17cloudEvents:specversion")
    flags_and_content_type = 12 + 2 + 1 + len("application/json")
    table = payload[flags_and_content_type + 4 :]
    size = int.from_bytes(payload[flags_and_content_type : flags_and_content_type + 4], "big")
    for levels in range(50, 1000):
        value = name + nested(levels)
        grown = size + len(value) - (end - begin)
        fields = table[: begin - flags_and_content_type - 4] + value + payload[end:]
        decoder.header(payload[:flags_and_content_type] + grown.to_bytes(4, "big") + fields)
