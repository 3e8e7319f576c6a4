"""Encodes messages to AMQP frames. The parts that many events share are encoded once."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus.message import EventMessage
from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.driver.templates import Template

# Sample values for the fields that differ between events. They cannot occur in names.
SAMPLE_ID = "\x01" * 36
SAMPLE_TIME = datetime(2001, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
SAMPLE_SIZE = 0x0102030405060708
SAMPLE_TRACEPARENT = "\x02" * 55

# The header and the end of a frame, in bytes (AMQP 0-9-1, section 4.2.3)
_FRAME_OVERHEAD = 8


def encode(
    properties: Basic.Properties,
    body: bytes,
    *,
    channel_number: int,
    frame_size: int,
) -> bytes:
    """Return the frames of a message's properties and body.

    Args:
        properties: The properties.
        body: The body.
        channel_number: The channel that the frames are for.
        frame_size: The size of the largest frame that the broker accepts, in bytes.

    Raises:
        ValueError: The properties do not fit into one frame (AMQP 0-9-1, section 4.2.6.1), or AMQP
            cannot represent one of them.
        OverflowError, TypeError, struct.error: AMQP cannot represent one of the properties.
    """
    header = pamqp.frame.marshal(
        ContentHeader(properties=properties, body_size=len(body)), channel_number
    )
    if len(header) > frame_size:
        # The broker would close the connection.
        raise ValueError(f"{len(header):,} bytes of properties are more than {frame_size:,}")
    part_size = frame_size - _FRAME_OVERHEAD
    parts = [
        ContentBody(body[start : start + part_size]) for start in range(0, len(body), part_size)
    ]
    return b"".join([header] + [pamqp.frame.marshal(part, channel_number) for part in parts])


def encode_publish(
    exchange: str, routing_key: str, *, is_mandatory: bool, channel_number: int
) -> bytes:
    """Return the frame of ``basic.publish``, which the frames of the message follow."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=is_mandatory)
    return pamqp.frame.marshal(method, channel_number)


def _values(event_id: str, fired_at: datetime, size: int) -> tuple[bytes, ...]:
    """Return the values that differ between events, as bytes of a frame."""
    return (
        event_id.encode(),
        headers.exact_time(fired_at).encode(),
        int(fired_at.timestamp()).to_bytes(8, "big"),
        size.to_bytes(8, "big"),
    )


_SAMPLE_VALUES = _values(SAMPLE_ID, SAMPLE_TIME, SAMPLE_SIZE)


def sample_values(*, is_traced: bool) -> tuple[bytes, ...]:
    """Return the sample values: id, time, time in whole seconds, body size, and traceparent.

    Args:
        is_traced: Whether the events have a traceparent.
    """
    return (*_SAMPLE_VALUES, SAMPLE_TRACEPARENT.encode()) if is_traced else _SAMPLE_VALUES


class EventEncoder:
    """Encodes fired events for one channel.

    Args:
        channel_number: The channel.
        frame_size: The size of the largest frame that the broker accepts, in bytes.
    """

    def __init__(self, channel_number: int, frame_size: int) -> None:
        self._channel_number = channel_number
        self._frame_size = frame_size
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def encode(self, message: EventMessage, *, is_mandatory: bool) -> bytes:
        """Return the frames that publish an event to the exchange of its API.

        The errors are those of the function `encode`.
        """
        key = (
            message.api_name,
            message.event_name,
            message.service_name,
            message.version,
            message.traceparent == "",
            is_mandatory,
        )
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(
                message,
                is_mandatory=is_mandatory,
                channel_number=self._channel_number,
                frame_size=self._frame_size,
            )
        return kind.encode(message)


class _Kind:
    """Events that differ only in id, time, traceparent and body."""

    def __init__(
        self, message: EventMessage, *, is_mandatory: bool, channel_number: int, frame_size: int
    ) -> None:
        self._channel_number = channel_number
        self._frame_size = frame_size
        self._method = encode_publish(
            names.api_exchange(message.api_name),
            message.event_name,
            is_mandatory=is_mandatory,
            channel_number=channel_number,
        )
        is_traced = message.traceparent != ""
        sample = attrs.evolve(
            message,
            id=SAMPLE_ID,
            fired_at=SAMPLE_TIME,
            traceparent=SAMPLE_TRACEPARENT if is_traced else "",
        )
        header = ContentHeader(properties=headers.properties_of(sample), body_size=SAMPLE_SIZE)
        frames = self._method + pamqp.frame.marshal(header, channel_number)
        values = sample_values(is_traced=is_traced)
        self._lengths = [len(value) for value in values]
        self._template = Template(frames, values)

    def encode(self, message: EventMessage) -> bytes:
        """Return the frames that publish an event."""
        body = message.body
        values = self._fitting_values(message)
        if values is None or not 0 < len(body) <= self._frame_size - _FRAME_OVERHEAD:
            return self._method + encode(
                headers.properties_of(message),
                body,
                channel_number=self._channel_number,
                frame_size=self._frame_size,
            )
        frames = self._template.fill(values)
        return frames + pamqp.frame.marshal(ContentBody(body), self._channel_number)

    def _fitting_values(self, message: EventMessage) -> tuple[bytes, ...] | None:
        """Return the values of an event; None if they do not fit into the template."""
        try:
            values = _values(message.id, message.fired_at, len(message.body))
            if message.traceparent:
                values += (message.traceparent.encode(),)
        except (OverflowError, UnicodeError, ValueError):
            return None
        return values if [len(value) for value in values] == self._lengths else None
