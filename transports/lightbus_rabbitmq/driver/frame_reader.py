"""`FrameStream`: the bytes of a connection; the frames of messages go past the driver, both ways.

The driver reads each frame in three waits, logs it, and passes it on through a queue, which costs
several times what decoding it does. Here the frames of messages, and of the broker's answers to
them, are cut from what has come and handed to their channels at once. The driver reads the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

import pamqp.frame
from aiormq.abc import AbstractChannel, FrameType
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import commands, constants
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

from lightbus_rabbitmq import headers
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.decoding import Decoder, UnreadableHeader, decoded_header

# A frame's type, channel and size (AMQP 0-9-1, section 4.2.3)
_HEAD = struct.Struct(">BHI")
_KINDS = (
    constants.FRAME_METHOD,
    constants.FRAME_HEADER,
    constants.FRAME_BODY,
    constants.FRAME_HEARTBEAT,
)

_DELIVER = commands.Basic.Deliver.index.to_bytes(4, "big")
_CLOSE = commands.Connection.Close.index.to_bytes(4, "big")

# The other methods that a `Channel` takes in, or wants to know of.
_METHODS: dict[bytes, type[Frame]] = {
    method.index.to_bytes(4, "big"): method
    for method in (
        commands.Basic.Return,
        commands.Basic.Ack,
        commands.Basic.Nack,
        commands.Channel.Close,
    )
}

# The driver ends a connection from which it has read nothing for three heartbeats, and RabbitMQ
# sends none while it sends other things. Less than the shortest heartbeat, in seconds.
_HEARTBEAT_PERIOD = 0.5
_HEARTBEAT = Heartbeat().marshal()


class FrameStream(TransportFactory):
    """Makes the one connection, when the driver asks for it."""

    def __init__(self) -> None:
        self._reader: FrameReader | None = None
        self._transport: asyncio.WriteTransport | None = None

    @property
    def close(self) -> commands.Connection.Close | None:
        """With what the broker ended the connection; None where it did not, or said nothing."""
        return self._reader.close if self._reader else None

    def begin(self, channels: Mapping[int, AbstractChannel | None]) -> None:
        """Hand the messages of `channels`, by their numbers, to those that are a `Channel`."""
        if self._reader is not None:
            self._reader.begin(channels)

    def write(self, frames: bytes) -> bool:
        """Write frames, unless the driver has closed the wire, or others wait to be written."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        transport.write(frames)
        return True

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; see `asyncio.open_connection`, which has no say in the class of its reader.

        Raises:
            AMQPConnectionError: There is nobody at `url`, or nobody who is to be trusted.
        """
        loop = asyncio.get_running_loop()
        context_provider = kwargs.pop("ssl_context_provider")
        context = await context_provider.get_context() if url.scheme == "amqps" else None
        reader = FrameReader(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, host=url.host or "", port=url.port or 0, ssl=context, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self._reader, self._transport = reader, transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class FrameReader(asyncio.StreamReader):
    """Reads for the driver what no channel takes in.

    Attributes:
        close: With what the broker ended the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.channels: Mapping[int, AbstractChannel | None] = {}
        self.close: commands.Connection.Close | None = None
        self._now = loop.time
        self._decoder = Decoder()
        self._pending = b""
        self._is_amqp = True
        # While the connection is negotiated, the driver takes nothing but what it waits for.
        self._next_heartbeat = math.inf

    def begin(self, channels: Mapping[int, AbstractChannel | None]) -> None:
        """Hand on the messages of `channels` from now on."""
        self.channels = channels
        self._next_heartbeat = self._now()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if not self._is_amqp:
            super().feed_data(data)
            return
        try:
            left = self._left_of(self._pending + bytes(data))
        except InvalidFrameError as error:
            # From here on nobody knows what is meant, and the driver ends the connection.
            self._is_amqp = False
            self.set_exception(error)
            return
        if left:
            super().feed_data(left)
        elif self._now() >= self._next_heartbeat:
            super().feed_data(_HEARTBEAT)
            self._next_heartbeat = self._now() + _HEARTBEAT_PERIOD

    def feed_eof(self) -> None:
        # It comes twice where the other side closes first.
        if self._pending:
            super().feed_data(self._pending)
            self._pending = b""
        super().feed_eof()

    def _left_of(self, received: bytes) -> bytes:
        """Hand on the frames of messages; return the others, and keep what is no whole frame."""
        left: list[bytes] = []
        start, end = 0, len(received)
        while end - start >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(received, start)
            if kind not in _KINDS:
                self._is_amqp = False
                left.append(received[start:])
                start = end
                break
            next_start = start + _HEAD.size + size + 1
            if next_start > end:
                break
            payload = received[start + _HEAD.size : next_start - 1]
            is_whole = received[next_start - 1] == constants.FRAME_END
            if not (is_whole and self._is_taken(kind, number, payload)):
                frame = received[start:next_start]
                left.append(_readable(frame) if kind == constants.FRAME_HEADER else frame)
            start = next_start
        self._pending = received[start:]
        return b"".join(left)

    def _is_taken(self, kind: int, number: int, payload: bytes) -> bool:
        channel = self.channels.get(number)
        if not isinstance(channel, Channel):
            if number == 0 and payload.startswith(_CLOSE):
                self._note_close(payload)
            return False
        try:
            frame = self._decoded(kind, payload, channel)
        except Exception:
            # The driver fails at it, too, and ends the connection in its own way.
            return False
        return frame is not None and channel.take_in(frame)

    def _note_close(self, payload: bytes) -> None:
        # The driver keeps only a part of it: what it expected instead, or that it was closed.
        close = commands.Connection.Close()
        with contextlib.suppress(Exception):
            close.unmarshal(payload[len(_CLOSE) :])
            self.close = close

    def _decoded(self, kind: int, payload: bytes, channel: Channel) -> FrameType | None:
        """Return the frame where it may be one for `channel` to take in."""
        if kind == constants.FRAME_METHOD:
            if payload.startswith(_DELIVER):
                return self._decoder.delivery(payload)
            if method := _METHODS.get(payload[: len(_DELIVER)]):
                frame = method()
                frame.unmarshal(payload[len(_DELIVER) :])
                return frame
        elif not channel.is_message_awaited:
            return None
        elif kind == constants.FRAME_HEADER:
            return self._decoder.header(payload)
        elif kind == constants.FRAME_BODY:
            return ContentBody(payload)
        return None


def _readable(frame: bytes) -> bytes:
    """Return the frame of a content header, without its properties where they cannot be decoded.

    The driver would end the connection, and what waits behind such a message in a queue could
    never be read.
    """
    _, number, _ = _HEAD.unpack_from(frame)
    header = decoded_header(frame[_HEAD.size : -1])
    if not isinstance(header, UnreadableHeader):
        return frame
    kept = ContentHeader(0, header.body_size, headers.dropped())
    return pamqp.frame.marshal(kept, number)
