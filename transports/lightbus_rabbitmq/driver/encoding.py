"""Messages to AMQP frames, where the parts that are the same for many are encoded once."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from lightbus.message import EventMessage
from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.driver.templates import Pattern

# Stand for what differs from event to event, and can stand in no name.
SAMPLE_ID = "\x01" * 36
SAMPLE_TIME = datetime(2001, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)
SAMPLE_SIZE = 0x0102030405060708
SAMPLE_TRACEPARENT = "\x02" * 55

# A frame's head and end (AMQP 0-9-1, section 4.2.3)
_FRAME_OVERHEAD = 8


def encoded(
    properties: Basic.Properties,
    body: bytes,
    *,
    channel_number: int,
    frame_size: int,
) -> bytes:
    """Return the frames of a message's properties and body.

    Args:
        channel_number: The channel that they are for.
        frame_size: How many bytes a frame may have, at most.

    Raises:
        ValueError: The properties do not fit into one frame, as they must (AMQP 0-9-1, section
            4.2.6.1), or AMQP has no form for one of them.
        OverflowError, TypeError, struct.error: AMQP has no form for one of the properties.
    """
    header = pamqp.frame.marshal(
        ContentHeader(properties=properties, body_size=len(body)), channel_number
    )
    if len(header) > frame_size:
        # The broker would end the connection.
        raise ValueError(f"{len(header):,} bytes of properties are more than {frame_size:,}")
    most = frame_size - _FRAME_OVERHEAD
    parts = [ContentBody(body[start : start + most]) for start in range(0, len(body), most)]
    return b"".join([header] + [pamqp.frame.marshal(part, channel_number) for part in parts])


def encoded_method(
    exchange: str, routing_key: str, *, is_mandatory: bool, channel_number: int
) -> bytes:
    """Return the frame that says where the message behind it is to go."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=is_mandatory)
    return pamqp.frame.marshal(method, channel_number)


def _values(event_id: str, fired_at: datetime, size: int) -> tuple[bytes, ...]:
    """Return what differs from event to event, as it stands in a frame."""
    return (
        event_id.encode(),
        headers.exact_time(fired_at).encode(),
        int(fired_at.timestamp()).to_bytes(8, "big"),
        size.to_bytes(8, "big"),
    )


_SAMPLE_VALUES = _values(SAMPLE_ID, SAMPLE_TIME, SAMPLE_SIZE)


def sample_values(*, is_traced: bool) -> tuple[bytes, ...]:
    """Return what differs from event to event of a kind, in the sample of it.

    That is the id, the time, the same in whole seconds, the size of the body, and, where events of
    the kind belong to a trace, the `traceparent`.
    """
    return (*_SAMPLE_VALUES, SAMPLE_TRACEPARENT.encode()) if is_traced else _SAMPLE_VALUES


class EventFrames:
    """The frames of fired events, for one channel.

    Args:
        channel_number: The channel.
        frame_size: How many bytes a frame may have, at most.
    """

    def __init__(self, channel_number: int, frame_size: int) -> None:
        self._channel_number = channel_number
        self._frame_size = frame_size
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def encoded(self, message: EventMessage, *, is_mandatory: bool) -> bytes:
        """Return all frames of the publish of an event to its API's exchange.

        Raises:
            Exception: What the function `encoded` raises.
        """
        kind_of = (
            message.api_name,
            message.event_name,
            message.service_name,
            message.version,
            message.traceparent == "",
            is_mandatory,
        )
        kind = self._kinds.get(kind_of)
        if kind is None:
            kind = self._kinds[kind_of] = _Kind(
                message,
                is_mandatory=is_mandatory,
                channel_number=self._channel_number,
                frame_size=self._frame_size,
            )
        return kind.encoded(message)


class _Kind:
    """Events that differ in no more than id, time, trace and body."""

    def __init__(
        self, message: EventMessage, *, is_mandatory: bool, channel_number: int, frame_size: int
    ) -> None:
        self._channel_number = channel_number
        self._frame_size = frame_size
        self._method = encoded_method(
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
        self._pattern = Pattern(frames, values)

    def encoded(self, message: EventMessage) -> bytes:
        """Return the frames of an event's properties and body."""
        body = message.body
        values = self._fitting_values(message)
        if values is None or not 0 < len(body) <= self._frame_size - _FRAME_OVERHEAD:
            return self._method + encoded(
                headers.properties_of(message),
                body,
                channel_number=self._channel_number,
                frame_size=self._frame_size,
            )
        frames = self._pattern.filled(values)
        return frames + pamqp.frame.marshal(ContentBody(body), self._channel_number)

    def _fitting_values(self, message: EventMessage) -> tuple[bytes, ...] | None:
        """Return what to put in; None where it has not the form of the sample's."""
        try:
            values = _values(message.id, message.fired_at, len(message.body))
            if message.traceparent:
                values += (message.traceparent.encode(),)
        except (OverflowError, UnicodeError, ValueError):
            return None
        return values if [len(value) for value in values] == self._lengths else None
