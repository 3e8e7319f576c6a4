"""`Channel`: the driver's channel, without an object, a lock and a task for each message.

For each message that is sent, the driver creates two futures, waits for a lock, and sets a timeout.
For each delivery, it creates a task. This channel creates one future for each message, writes many
of them at once, and passes deliveries on as they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import aiormq
import pamqp.frame
from aiormq.abc import (
    AbstractConnection,
    DeliveredMessage,
    FrameType,
    TimeoutType,
)
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethods

from lightbus.log import get_logger
from lightbus_rabbitmq.driver.acknowledgements import Acknowledgements
from lightbus_rabbitmq.driver.channel_numbers import free_channel_number
from lightbus_rabbitmq.driver.confirms import Confirms, Outcome
from lightbus_rabbitmq.driver.decoding import UnreadableHeader
from lightbus_rabbitmq.driver.encoding import EventEncoder
from lightbus_rabbitmq.driver.errors import ConnectionLost, error_text
from lightbus_rabbitmq.driver.incoming import IncomingMessage
from lightbus_rabbitmq.driver.waiting import run_while_connected
from lightbus_rabbitmq.driver.writer import ChannelWriter, Write

_log = get_logger(__name__)

Receiver = Callable[[DeliveredMessage], None]


class Channel(aiormq.Channel):
    """A channel to send on, with confirms, or to consume on, without confirms.

    Args:
        connection: The connection.
        number: The number of the channel.
        write: Writes to the connection at once, and returns whether it could.
        confirms: Whether the broker confirms messages.

    Attributes:
        senders: How many senders wait for the outcome of their messages.
        last_received: The tag of the latest delivery; 0 if there was none.
        event_encoder: Encodes events for this channel.
    """

    def __init__(
        self, connection: AbstractConnection, number: int, write: Write, *, confirms: bool
    ) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, on_return_raises=False)
        self.senders = 0
        self.last_received = 0
        self.event_encoder = EventEncoder(self.number, connection.connection_tune.frame_max)
        self._is_lost = False
        self._unconfirmed = Confirms(self.loop)
        self._writer = ChannelWriter(
            self.loop,
            write,
            self.write_queue,
            is_lost=lambda: self.is_lost,
            add_acks=self._write_acks,
        )
        self._receivers: dict[str, Receiver] = {}
        self._discarding: set[str] = set()
        self._incoming: IncomingMessage | None = None
        self._acknowledgements = Acknowledgements(self.loop)
        self._are_acks_withheld = False
        # When the driver ends a connection, it may not wake the tasks that wait on its channels.
        connection_lost = connection.closing
        connection_lost.add_done_callback(self._end)
        self.closing.add_done_callback(self._end)
        self.closing.add_done_callback(lambda _: connection_lost.cancel())

    @classmethod
    async def open_on(
        cls, connection: AbstractConnection, write: Write, *, confirms: bool
    ) -> Channel:
        """Open a new channel on a connection.

        Raises:
            NoFreeChannel: All channels that the broker allows are in use.
        """
        number = free_channel_number(connection)
        channel = cls(connection, number, write, confirms=confirms)
        connection.channels[number] = channel
        await channel.open()
        return channel

    @property
    def is_lost(self) -> bool:
        """Whether the channel is closed. The broker requeues its unsettled deliveries then."""
        return self._is_lost or self.is_closed

    async def close(self, exc: Any = asyncio.CancelledError, timeout: TimeoutType = None) -> None:
        """Close the channel, after everything that was sent and settled is written."""
        if exc is asyncio.CancelledError:  # the default: the caller gave no reason
            await self._writer.wait_until_idle()
            self.give_up()
        await super().close(exc, timeout)

    def give_up(self) -> None:
        """Write nothing more, because the driver closes the channel.

        The broker closes the connection if anything follows that on the channel.
        """
        self._is_lost = True

    def _end(self, closing: asyncio.Future[Any]) -> None:
        cause = None if closing.cancelled() else closing.exception()
        self._is_lost = True

        def lost() -> ConnectionLost:
            error = ConnectionLost(error_text(cause) if cause else "the channel was closed")
            error.__cause__ = cause
            return error

        self._unconfirmed.fail_all(lost)
        self._writer.discard()

    # Sending

    async def ready(self) -> None:
        """Wait until the broker reads, and until there is room in the write buffer.

        Raises:
            ConnectionLost: The connection was lost.
        """
        # Otherwise messages would fill the memory of this process, and delay heartbeats.
        if not _ends_at_once(self.connection.ready()):
            await run_while_connected(self.connection, self.connection.ready())
        await self._writer.wait_for_room()

    async def wait_for_id(self, message_id: str) -> None:
        """Wait while a mandatory message with this id is in flight.

        The broker returns a mandatory message with its id, and without its delivery tag.
        """
        await self._unconfirmed.wait_for_id(message_id)

    def send(self, frames: bytes, *, mandatory_id: str | None = None) -> asyncio.Future[Outcome]:
        """Write a message; return a future for its outcome.

        Args:
            frames: The encoded message.
            mandatory_id: The id of the message if it is mandatory. Await `wait_for_id` before.

        Raises:
            ConnectionLost: The channel is closed. The future also raises it, if the channel is
                closed before the broker confirms the message.
        """
        if self.is_lost:
            raise ConnectionLost("the channel was closed")
        self.delivery_tag += 1
        outcome = self._unconfirmed.add(self.delivery_tag, mandatory_id)
        self._writer.write(frames)
        return outcome

    # Consuming

    async def consume(self, queue: str, receiver: Receiver, *, discards: bool = False) -> str:
        """Start to consume; return the consumer tag.

        Args:
            queue: The name of the queue.
            receiver: Called with each message, in the task that reads the connection.
            discards: Whether to discard, instead of requeue, a message at which `receiver` fails.
        """
        tag = secrets.token_hex(8)
        self._receivers[tag] = receiver
        if discards:
            self._discarding.add(tag)
        await self.basic_consume(queue, _unused_callback, consumer_tag=tag)
        return tag

    @property
    def settled_at(self) -> float:
        """When a delivery was last settled, by the clock of the event loop."""
        return self._acknowledgements.settled_at

    def unsettled_after(self, delivery_tag: int) -> int:
        """Return how many deliveries after this one are not settled, as far as the broker knows."""
        return self._acknowledgements.unsettled_between(delivery_tag, self.last_received)

    def withhold_acks(self) -> None:
        """Write no acknowledgements until `send_acks`, so that the broker stops delivering."""
        self._are_acks_withheld = True

    def send_acks(self) -> None:
        """Write the acknowledgements that were withheld, before any later settlement."""
        self._are_acks_withheld = False
        self._write_acks()
        self._writer.write_soon()

    async def flush(self, timeout: float) -> None:
        """Write the acknowledgements that were withheld, and wait until the connection has them.

        Args:
            timeout: How long to wait, in seconds.
        """
        self.send_acks()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._writer.wait_until_idle()

    def ack(self, delivery_tag: int) -> None:
        """Acknowledge a delivery."""
        self._acknowledgements.pending.add(delivery_tag)
        self._writer.write_soon()

    def nack(self, delivery_tag: int) -> None:
        """Requeue a delivery that was not tried."""
        self._settle(delivery_tag, Basic.Nack(delivery_tag=delivery_tag, requeue=True))

    def reject(self, delivery_tag: int) -> None:
        """Requeue a delivery that was tried."""
        self._settle(delivery_tag, Basic.Reject(delivery_tag=delivery_tag, requeue=True))

    def _settle(self, delivery_tag: int, method: Basic.Nack | Basic.Reject) -> None:
        self._acknowledgements.add_settled(delivery_tag)
        self._writer.write(pamqp.frame.marshal(method, self.number))

    def _write_acks(self) -> None:
        if not self._are_acks_withheld:
            for method in self._acknowledgements.methods():
                self._writer.write(pamqp.frame.marshal(method, self.number))

    # Reading

    @property
    def expects_content(self) -> bool:
        """Whether a message has started to arrive, and is not complete."""
        return self._incoming is not None

    def handle_frame(self, frame: FrameType) -> bool:
        """Handle a frame of a message or of a confirm; return False for any other frame."""
        incoming = self._incoming
        if incoming is not None:
            if incoming.add(frame):
                self._incoming = None
                self._handle_message(incoming)
            return True
        if isinstance(frame, Basic.Deliver):
            if frame.consumer_tag not in self._receivers:
                return False
            self._incoming = IncomingMessage(frame)
            self.last_received = frame.delivery_tag or 0
            return True
        if isinstance(frame, Basic.Return):
            self._incoming = IncomingMessage(frame)
            return True
        if isinstance(frame, Basic.Ack | Basic.Nack):
            self._unconfirmed.on_confirm(frame)
            return True
        if isinstance(frame, ChannelMethods.Close):
            self.give_up()  # the driver answers the frame
        return False

    def _handle_message(self, incoming: IncomingMessage) -> None:
        message = incoming.message(self)
        if isinstance(incoming.method, Basic.Return):
            self._unconfirmed.on_returned(message)
            return
        if isinstance(message.header, UnreadableHeader):
            # The queue dead-letters the event when it was rejected too often.
            _log.error(
                "Event rejected: its properties cannot be decoded.",
                reason=error_text(message.header.error),
                exchange=message.exchange,
                routing_key=message.routing_key,
            )
            self._reject_unhandled(incoming.method)
            return
        try:
            self._receivers[str(incoming.method.consumer_tag)](message)
        except Exception:
            # If it was raised, the driver would close the connection. The queue dead-letters the
            # event when it was rejected too often.
            _log.exception("Event could not be received; it will be redelivered.")
            self._reject_unhandled(incoming.method)

    def _reject_unhandled(self, method: Basic.Deliver) -> None:
        tag = method.delivery_tag or 0
        if method.consumer_tag in self._discarding:
            self._settle(tag, Basic.Reject(delivery_tag=tag, requeue=False))
        else:
            self.reject(tag)


async def _unused_callback(_: DeliveredMessage) -> None:
    """Do nothing. The driver requires a callback, but never gets the messages."""


def _ends_at_once(waiting: Coroutine[Any, Any, None]) -> bool:
    """Return whether a coroutine ends without waiting, without creating a task."""
    try:
        waiting.send(None)
    except StopIteration:
        return True
    waiting.close()
    return False
