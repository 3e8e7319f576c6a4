"""`Decoder`: decodes frames. The parts that many events share are decoded once.

The driver takes longer to decode a delivery and its properties than most handlers take. The frames
of similar events differ in a few values, whose positions the first such frame shows.
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
from lightbus_rabbitmq.driver.templates import Template

# How many templates are kept, and how many for one length of a frame. Other programs may send any
# number of different frames.
_MAX_TEMPLATES = 256
_MAX_OF_ONE_LENGTH = 16

# The ids of a class and a method, in bytes (AMQP 0-9-1, section 4.2.4)
_METHOD_SIZE = 4

# A sample delivery tag. It cannot occur in a name.
_TAG = (0x0102030405060708).to_bytes(8, "big")

# The driver takes a larger timestamp for milliseconds.
_MAX_TIMESTAMP = 0xFFFFFFFF

Decoded = TypeVar("Decoded")
Decoded_co = TypeVar("Decoded_co", covariant=True)


class Decoder:
    """Decodes the frames of one connection."""

    def __init__(self) -> None:
        self._deliveries: _Templates[Basic.Deliver] = _Templates(_DeliveryTemplate)
        self._headers: _Templates[ContentHeader] = _Templates(_HeaderTemplate)

    def delivery(self, payload: bytes) -> Basic.Deliver:
        """Return the method of a frame that delivers a message.

        Raises:
            Exception: The frame cannot be decoded.
        """
        found = self._deliveries.find(payload)
        if found is None:
            found = Basic.Deliver()
            found.unmarshal(payload[_METHOD_SIZE:])
            self._deliveries.learn(payload, found)
        return found

    def header(self, payload: bytes) -> ContentHeader:
        """Return the content header of a message; an `UnreadableHeader` if it cannot be decoded."""
        found = self._headers.find(payload)
        if found is None:
            found = decode_header(payload)
            if headers.has_event_headers_only(found.properties):
                self._headers.learn(payload, found)
        return found


class UnreadableHeader(ContentHeader):
    """A content header whose properties cannot be decoded. Only the size of the body is known.

    Args:
        header: The header, as far as it was decoded.
        error: The error that ended the decoding.
    """

    def __init__(self, header: ContentHeader, error: Exception) -> None:
        super().__init__(body_size=header.body_size)
        self.error = error


def decode_header(payload: bytes) -> ContentHeader:
    """Return a content header; an `UnreadableHeader` if it cannot be decoded."""
    header = ContentHeader()
    try:
        header.unmarshal(payload)
    except Exception as error:
        return UnreadableHeader(header, error)
    return header


class _FrameTemplate(Protocol[Decoded_co]):
    def decode(self, payload: bytes) -> Decoded_co | None:
        """Return the decoded payload; None if it does not match the template."""


class _Templates(Generic[Decoded]):
    """The templates of the payloads that were decoded before.

    Args:
        make_template: Makes a template from a decoded payload.
    """

    def __init__(self, make_template: Callable[[Decoded], _FrameTemplate[Decoded]]) -> None:
        self._make_template = make_template
        self._by_length: dict[int, list[_FrameTemplate[Decoded]]] = {}
        self._count = 0

    def find(self, payload: bytes) -> Decoded | None:
        """Return the decoded payload; None if no template matches."""
        for template in self._by_length.get(len(payload), ()):
            if (found := template.decode(payload)) is not None:
                return found
        return None

    def learn(self, payload: bytes, decoded: Decoded) -> None:
        """Make a template from a payload and keep it, unless there are too many."""
        known = self._by_length.get(len(payload), [])
        if len(known) == _MAX_OF_ONE_LENGTH:
            return
        if self._count == _MAX_TEMPLATES:
            self._by_length.clear()
            self._count, known = 0, []
        try:
            template = self._make_template(decoded)
        except Exception:
            return  # the driver decodes some values that it cannot encode
        if template.decode(payload) is not None:
            self._by_length[len(payload)] = [*known, template]
            self._count += 1


class _DeliveryTemplate:
    """Deliveries that differ only in their tags."""

    def __init__(self, delivery: Basic.Deliver) -> None:
        self._delivery = delivery
        sample = _with_tag(delivery, int.from_bytes(_TAG, "big"))
        method = sample.index.to_bytes(_METHOD_SIZE, "big")
        self._template = Template(method + sample.marshal(), [_TAG])

    def decode(self, payload: bytes) -> Basic.Deliver | None:
        values = self._template.extract(payload)
        if values is None:
            return None
        return _with_tag(self._delivery, int.from_bytes(values[0], "big"))


def _with_tag(delivery: Basic.Deliver, tag: int) -> Basic.Deliver:
    return Basic.Deliver(
        delivery.consumer_tag,
        tag,
        delivery.redelivered,
        delivery.exchange,
        delivery.routing_key,
    )


class _HeaderTemplate:
    """Headers of fired events that differ only in id, time, traceparent and size."""

    def __init__(self, header: ContentHeader) -> None:
        self._properties = header.properties
        self._is_traced = headers.TRACEPARENT in (header.properties.headers or {})
        sample = headers.properties_of_similar(
            header.properties,
            SAMPLE_ID,
            headers.exact_time(SAMPLE_TIME),
            SAMPLE_TIME,
            SAMPLE_TRACEPARENT if self._is_traced else "",
        )
        sample_header = ContentHeader(0, SAMPLE_SIZE, sample)
        self._template = Template(sample_header.marshal(), sample_values(is_traced=self._is_traced))

    def decode(self, payload: bytes) -> ContentHeader | None:
        values = self._template.extract(payload)
        if values is None:
            return None
        traceparent = values.pop() if self._is_traced else b""
        event_id, time, timestamp, size = values
        seconds = int.from_bytes(timestamp, "big")
        if seconds > _MAX_TIMESTAMP or not (
            event_id.isascii() and time.isascii() and traceparent.isascii()
        ):
            return None
        properties = headers.properties_of_similar(
            self._properties,
            event_id.decode(),
            time.decode(),
            datetime.fromtimestamp(seconds, UTC),
            traceparent.decode(),
        )
        return ContentHeader(0, int.from_bytes(size, "big"), properties)
