"""`FrameReader`: reads a connection, and passes the frames of messages directly to their channels.

The driver awaits each frame three times, logs it, and passes it on through a queue. That takes
several times as long as decoding the frame. So the reader takes the frames of messages and confirms
out of the received bytes, and leaves the other frames to the driver.
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
from lightbus_rabbitmq.driver.decoding import Decoder, UnreadableHeader, decode_header

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

# The other methods that a `Channel` handles
_METHODS: dict[bytes, type[Frame]] = {
    method.index.to_bytes(4, "big"): method
    for method in (
        commands.Basic.Return,
        commands.Basic.Ack,
        commands.Basic.Nack,
        commands.Channel.Close,
    )
}

# RabbitMQ sends no heartbeats while it sends other frames, and the driver closes a connection from
# which it reads nothing for three heartbeats. So the driver gets one this often, in seconds.
# That is less than the shortest heartbeat.
_HEARTBEAT_PERIOD = 0.5
_HEARTBEAT = Heartbeat().marshal()


class FrameStream(TransportFactory):
    """The byte stream of one connection, which opens when the driver asks for it."""

    def __init__(self) -> None:
        self._reader: FrameReader | None = None
        self._transport: asyncio.WriteTransport | None = None

    @property
    def close(self) -> commands.Connection.Close | None:
        """The method with which the broker closed the connection; None if it sent none."""
        return self._reader.close if self._reader else None

    def attach(self, channels: Mapping[int, AbstractChannel | None]) -> None:
        """Pass messages to those of the driver's channels, by number, that are a `Channel`."""
        if self._reader is not None:
            self._reader.attach(channels)

    def write(self, frames: bytes) -> bool:
        """Write frames, unless the stream is closed or has a backlog; return whether it did."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        transport.write(frames)
        return True

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect like `asyncio.open_connection`, with a `FrameReader` as the reader.

        Raises:
            AMQPConnectionError: No broker answers at `url`, or its certificate is not trusted.
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
    """The reader of the driver's stream, without the frames that a `Channel` handles.

    Attributes:
        channels: The channels of the connection, by number.
        close: The method with which the broker closed the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.channels: Mapping[int, AbstractChannel | None] = {}
        self.close: commands.Connection.Close | None = None
        self._now = loop.time
        self._decoder = Decoder()
        self._pending = b""
        self._is_amqp = True
        # While the driver negotiates the connection, it expects no heartbeats.
        self._next_heartbeat = math.inf

    def attach(self, channels: Mapping[int, AbstractChannel | None]) -> None:
        """Pass the frames of messages to these channels from now on."""
        self.channels = channels
        self._next_heartbeat = self._now()

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if not self._is_amqp:
            super().feed_data(data)
            return
        try:
            rest = self._handle_frames(self._pending + bytes(data))
        except InvalidFrameError as error:
            # The driver closes the connection, because the frames that follow are ambiguous.
            self._is_amqp = False
            self.set_exception(error)
            return
        if rest:
            super().feed_data(rest)
        elif self._now() >= self._next_heartbeat:
            super().feed_data(_HEARTBEAT)
            self._next_heartbeat = self._now() + _HEARTBEAT_PERIOD

    def feed_eof(self) -> None:
        # asyncio calls this twice if the other side closes first.
        if self._pending:
            super().feed_data(self._pending)
            self._pending = b""
        super().feed_eof()

    def _handle_frames(self, received: bytes) -> bytes:
        """Pass on the frames of messages; return the others, and keep an incomplete frame."""
        rest: list[bytes] = []
        start, end = 0, len(received)
        while end - start >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(received, start)
            if kind not in _KINDS:
                self._is_amqp = False
                rest.append(received[start:])
                start = end
                break
            next_start = start + _HEAD.size + size + 1
            if next_start > end:
                break
            payload = received[start + _HEAD.size : next_start - 1]
            is_whole = received[next_start - 1] == constants.FRAME_END
            if not (is_whole and self._handle(kind, number, payload)):
                frame = received[start:next_start]
                rest.append(_readable(frame) if kind == constants.FRAME_HEADER else frame)
            start = next_start
        self._pending = received[start:]
        return b"".join(rest)

    def _handle(self, kind: int, number: int, payload: bytes) -> bool:
        """Pass a frame to its channel; return False if the driver has to handle it."""
        channel = self.channels.get(number)
        if not isinstance(channel, Channel):
            if number == 0 and payload.startswith(_CLOSE):
                self._note_close(payload)
            return False
        try:
            frame = self._decoded(kind, payload, channel)
        except Exception:
            # The driver fails to decode it, too, and closes the connection.
            return False
        return frame is not None and channel.handle_frame(frame)

    def _note_close(self, payload: bytes) -> None:
        # The driver does not keep the whole method.
        close = commands.Connection.Close()
        with contextlib.suppress(Exception):
            close.unmarshal(payload[len(_CLOSE) :])
            self.close = close

    def _decoded(self, kind: int, payload: bytes, channel: Channel) -> FrameType | None:
        """Return the frame if the channel may handle it."""
        if kind == constants.FRAME_METHOD:
            if payload.startswith(_DELIVER):
                return self._decoder.delivery(payload)
            if method := _METHODS.get(payload[: len(_DELIVER)]):
                frame = method()
                frame.unmarshal(payload[len(_DELIVER) :])
                return frame
        elif not channel.expects_content:
            return None
        elif kind == constants.FRAME_HEADER:
            return self._decoder.header(payload)
        elif kind == constants.FRAME_BODY:
            return ContentBody(payload)
        return None


def _readable(frame: bytes) -> bytes:
    """Return the frame of a content header, without properties if they cannot be decoded.

    Otherwise the driver would close the connection, each time that it reads the queue.
    """
    _, number, _ = _HEAD.unpack_from(frame)
    header = decode_header(frame[_HEAD.size : -1])
    if not isinstance(header, UnreadableHeader):
        return frame
    without_properties = ContentHeader(0, header.body_size, headers.unreadable_properties())
    return pamqp.frame.marshal(without_properties, number)
