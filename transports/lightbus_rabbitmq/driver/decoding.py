"""`Decoder`: frames to the driver's objects, where what is the same for many is decoded once.

The driver takes longer to decode a delivery and its properties than most handlers take. From one
event of a kind to the next, little in them differs, and where it stands, the first one shows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus_rabbitmq import headers
from lightbus_rabbitmq.driver.encoding import (
    SAMPLE_ID,
    SAMPLE_SIZE,
    SAMPLE_TIME,
    SAMPLE_TRACEPARENT,
    sample_values,
)
from lightbus_rabbitmq.driver.templates import Pattern

# How many kinds are remembered, and how many of one length. Foreign ones could be without number.
_MOST_KNOWN = 256
_MOST_OF_ONE_LENGTH = 16

# A class and a method (AMQP 0-9-1, section 4.2.4)
_METHOD_SIZE = 4

# Stands for what differs, and can stand in no name.
_TAG = (0x0102030405060708).to_bytes(8, "big")

# What is larger means milliseconds to the driver.
_LAST_TIMESTAMP = 0xFFFFFFFF

Decoded = TypeVar("Decoded")
Decoded_co = TypeVar("Decoded_co", covariant=True)


class Decoder:
    """Decodes for one connection."""

    def __init__(self) -> None:
        self._deliveries: _Memory[Basic.Deliver] = _Memory(_KnownDelivery)
        self._headers: _Memory[ContentHeader] = _Memory(_KnownHeader)

    def delivery(self, payload: bytes) -> Basic.Deliver:
        """Return the method of a frame that delivers a message.

        Raises:
            Exception: It cannot be decoded.
        """
        found = self._deliveries.find(payload)
        if found is None:
            found = Basic.Deliver()
            found.unmarshal(payload[_METHOD_SIZE:])
            self._deliveries.learn(payload, found)
        return found

    def header(self, payload: bytes) -> ContentHeader:
        """Return the content header of a message: an `UnreadableHeader` where its properties can
        not be decoded.
        """
        found = self._headers.find(payload)
        if found is None:
            found = decoded_header(payload)
            if headers.is_as_fired(found.properties):
                self._headers.learn(payload, found)
        return found


class UnreadableHeader(ContentHeader):
    """A content header of which no more is known than how long the body is.

    Args:
        header: The header, as far as it could be decoded.
        error: Why not further.
    """

    def __init__(self, header: ContentHeader, error: Exception) -> None:
        super().__init__(body_size=header.body_size)
        self.error = error


def decoded_header(payload: bytes) -> ContentHeader:
    """Return what the driver makes of a content header; an `UnreadableHeader` where it cannot."""
    header = ContentHeader()
    try:
        header.unmarshal(payload)
    except Exception as error:
        return UnreadableHeader(header, error)
    return header


class _Kind(Protocol[Decoded_co]):
    def decoded(self, payload: bytes) -> Decoded_co | None:
        """Return what `payload` says, if it is of this kind."""


class _Memory(Generic[Decoded]):
    """The kinds of payload that came before.

    Args:
        kind_of: Makes a kind of one of its kind.
    """

    def __init__(self, kind_of: Callable[[Decoded], _Kind[Decoded]]) -> None:
        self._kind_of = kind_of
        self._by_length: dict[int, list[_Kind[Decoded]]] = {}
        self._count = 0

    def find(self, payload: bytes) -> Decoded | None:
        """Return what `payload` says, if it is of a kind that is known."""
        for kind in self._by_length.get(len(payload), ()):
            if (found := kind.decoded(payload)) is not None:
                return found
        return None

    def learn(self, payload: bytes, decoded: Decoded) -> None:
        """Remember the kind of `payload`, if there is room."""
        known = self._by_length.get(len(payload), [])
        if len(known) == _MOST_OF_ONE_LENGTH:
            return
        if self._count == _MOST_KNOWN:
            self._by_length.clear()
            self._count, known = 0, []
        try:
            kind = self._kind_of(decoded)
        except Exception:
            return  # what the driver can decode, and not encode
        if kind.decoded(payload) is not None:
            self._by_length[len(payload)] = [*known, kind]
            self._count += 1


class _KnownDelivery:
    """Deliveries that differ in no more than their tags."""

    def __init__(self, one: Basic.Deliver) -> None:
        self._one = one
        sample = _delivery_like(one, int.from_bytes(_TAG, "big"))
        method = sample.index.to_bytes(_METHOD_SIZE, "big")
        self._pattern = Pattern(method + sample.marshal(), [_TAG])

    def decoded(self, payload: bytes) -> Basic.Deliver | None:
        values = self._pattern.values_in(payload)
        if values is None:
            return None
        return _delivery_like(self._one, int.from_bytes(values[0], "big"))


def _delivery_like(one: Basic.Deliver, tag: int) -> Basic.Deliver:
    return Basic.Deliver(one.consumer_tag, tag, one.redelivered, one.exchange, one.routing_key)


class _KnownHeader:
    """Headers of fired events that differ in no more than id, time, trace and size."""

    def __init__(self, one: ContentHeader) -> None:
        self._properties = one.properties
        self._is_traced = headers.TRACEPARENT in (one.properties.headers or {})
        sample = headers.of_another_event(
            one.properties,
            SAMPLE_ID,
            headers.exact_time(SAMPLE_TIME),
            SAMPLE_TIME,
            SAMPLE_TRACEPARENT if self._is_traced else "",
        )
        header = ContentHeader(0, SAMPLE_SIZE, sample)
        self._pattern = Pattern(header.marshal(), sample_values(is_traced=self._is_traced))

    def decoded(self, payload: bytes) -> ContentHeader | None:
        values = self._pattern.values_in(payload)
        if values is None:
            return None
        traceparent = values.pop() if self._is_traced else b""
        event_id, time, timestamp, size = values
        seconds = int.from_bytes(timestamp, "big")
        if seconds > _LAST_TIMESTAMP or not (
            event_id.isascii() and time.isascii() and traceparent.isascii()
        ):
            return None
        properties = headers.of_another_event(
            self._properties,
            event_id.decode(),
            time.decode(),
            datetime.fromtimestamp(seconds, UTC),
            traceparent.decode(),
        )
        return ContentHeader(0, int.from_bytes(size, "big"), properties)
