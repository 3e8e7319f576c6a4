"""`Channel`: the driver's channel, without an object, a lock and a task for each message.

The driver makes for each publish two futures, a lock's turn and a timeout, and for each delivery a
task. Here a publish is one future, many are written at once, and deliveries are handed on as they
are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import secrets
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, cast

import aiormq
import attrs
import pamqp.frame
from aiormq.abc import (
    AbstractConnection,
    ChannelFrame,
    DeliveredMessage,
    FrameType,
    TimeoutType,
)
from aiormq.exceptions import InvalidFrameError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.commands import Channel as ChannelMethods
from pamqp.header import ContentHeader

from lightbus.log import get_logger
from lightbus_rabbitmq.driver.decoding import UnreadableHeader
from lightbus_rabbitmq.driver.encoding import EventFrames
from lightbus_rabbitmq.driver.errors import ConnectionLost, NoFreeChannel, reason
from lightbus_rabbitmq.driver.waiting import unless_lost

_log = get_logger(__name__)

Receiver = Callable[[DeliveredMessage], None]
Write = Callable[[bytes], bool]

# How many bytes may wait to be written before those who send wait, too.
_MOST_UNWRITTEN = 1 << 20

_FULL_PAUSE = 0.001

# AMQP 0-9-1, section 4.2.3: a channel number has 16 bits.
_MOST_CHANNELS = (1 << 16) - 1


class Outcome(enum.Enum):
    """What a broker said of a message."""

    STORED = "every queue that it belongs in has it"
    REFUSED = "a queue that it belongs in did not take it"
    UNROUTED = "it belongs in no queue"


class Channel(aiormq.Channel):
    """A channel to send on, with confirms, or to consume on, without.

    Attributes:
        senders: How many wait for what the broker says of their message.
        last_received: The tag of the latest delivery; 0 where there was none.
        settled_at: When a delivery last made room for another, by the loop's clock.
    """

    def __init__(
        self, connection: AbstractConnection, number: int, write: Write, *, confirms: bool
    ) -> None:
        super().__init__(connection, number, publisher_confirms=confirms, on_return_raises=False)
        self._write_now = write
        self.senders = 0
        self.last_received = 0
        self.settled_at = 0.0
        self.event_frames = EventFrames(self.number, connection.connection_tune.frame_max)
        self._is_lost = False
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}
        self._returnable: dict[str, _Returnable] = {}
        self._returnable_ids: dict[int, str] = {}
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._has_room = _set_event()
        self._is_idle = _set_event()
        self._receivers: dict[str, Receiver] = {}
        self._discarding: set[str] = set()
        self._incoming: _Incoming | None = None
        self._acked: set[int] = set()
        self._settled: set[int] = set()
        self._settled_up_to = 0
        self._are_acks_withheld = False
        # The driver may end a connection and leave those who wait on its channels waiting.
        connection_lost = connection.closing
        connection_lost.add_done_callback(self._end)
        self.closing.add_done_callback(self._end)
        self.closing.add_done_callback(lambda _: connection_lost.cancel())

    @classmethod
    async def opened(
        cls, connection: AbstractConnection, write: Write, *, confirms: bool
    ) -> Channel:
        """Return a new channel of `connection`, which the broker has opened.

        Args:
            write: Writes to the connection at once, or returns that it cannot.

        Raises:
            NoFreeChannel: All that the broker allows are in use.
        """
        number = _free_number(connection)
        channel = cls(connection, number, write, confirms=confirms)
        connection.channels[number] = channel
        await channel.open()
        return channel

    @property
    def is_lost(self) -> bool:
        """Whether the broker takes nothing on it any more, and takes back what is unsettled."""
        return self._is_lost or self.is_closed

    @property
    def unconfirmed(self) -> int:
        """How many messages the broker has not answered."""
        return len(self._outcomes)

    async def close(self, exc: Any = asyncio.CancelledError, timeout: TimeoutType = None) -> None:
        """Close the channel, once all that was sent and settled is with the connection."""
        if exc is asyncio.CancelledError:  # as it is for those who give no reason
            while not self._is_idle.is_set():
                await self._is_idle.wait()
            self.give_up()
        await super().close(exc, timeout)

    def give_up(self) -> None:
        """Send and settle nothing more: the driver closes the channel, and what is written behind
        that would end the connection.
        """
        self._is_lost = True

    def _end(self, closing: asyncio.Future[Any]) -> None:
        cause = None if closing.cancelled() else closing.exception()
        self._is_lost = True
        outcomes, self._outcomes = self._outcomes, {}
        for tag in list(self._returnable_ids):
            self._forget_returnable(tag)
        for waiting in outcomes.values():
            if not waiting.done():
                lost = ConnectionLost(reason(cause) if cause else "the channel was closed")
                lost.__cause__ = cause
                waiting.set_exception(lost)
        self._unwritten.clear()
        self._has_room.set()
        self._is_idle.set()

    # Sending

    async def ready(self) -> None:
        """Wait while the broker reads nothing, and while the connection takes nothing more.

        Raises:
            ConnectionLost: It ended meanwhile.
        """
        # What is written meanwhile would fill this process, and hold up the heartbeats behind it.
        if not _is_at_once(self.connection.ready()):
            await unless_lost(self.connection, self.connection.ready())
        # All who wait are woken at once, and not all find room.
        while not self._has_room.is_set():
            await self._has_room.wait()

    async def is_unambiguous(self, message_id: str) -> None:
        """Wait while a mandatory message of that id is under way: what the broker returns is known
        by its id alone.
        """
        while (returnable := self._returnable.get(message_id)) is not None:
            await returnable.is_known.wait()

    def send(self, frames: bytes, *, returned_as: str | None = None) -> asyncio.Future[Outcome]:
        """Write a message; return a future for what the broker says of it.

        Args:
            frames: The message, for this channel.
            returned_as: Its id, where it is mandatory. `is_unambiguous` was awaited for it before.

        Raises:
            ConnectionLost: The channel has ended; so does the future, where it ends before the
                broker answers, from what it ended with.
        """
        if self.is_lost:
            raise ConnectionLost("the channel was closed")
        self.delivery_tag += 1
        outcome: asyncio.Future[Outcome] = self.loop.create_future()
        self._outcomes[self.delivery_tag] = outcome
        if returned_as is not None:
            self._returnable[returned_as] = _Returnable(self.delivery_tag)
            self._returnable_ids[self.delivery_tag] = returned_as
        self._write(frames)
        return outcome

    def _write(self, frames: bytes) -> None:
        self._unwritten.append(frames)
        self._unwritten_bytes += len(frames)
        if self._unwritten_bytes > _MOST_UNWRITTEN:
            self._has_room.clear()
        self._write_soon()

    def _write_soon(self) -> None:
        if self._is_idle.is_set():
            self._is_idle.clear()
            self.loop.call_soon(self._write_all)

    def _write_all(self) -> None:
        """Hand on all that is unwritten; come back for more once the connection has taken it."""
        self._write_acks()
        if self.is_lost or not self._unwritten:
            self._is_idle.set()
            return
        frames = b"".join(self._unwritten)
        if self._write_now(frames):
            self._note_written()
            self._is_idle.set()
            return
        written: asyncio.Future[None] = self.loop.create_future()
        try:
            self.write_queue.put_nowait(
                ChannelFrame(frames, should_close=False, drain_future=written)
            )
        except asyncio.QueueFull:
            # Others of the connection have filled it, and its writer is at it.
            self.loop.call_later(_FULL_PAUSE, self._write_all)
            return
        self._note_written()
        written.add_done_callback(lambda _: self._write_all())

    def _note_written(self) -> None:
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._has_room.set()

    def _on_outcome(self, frame: Basic.Ack | Basic.Nack) -> None:
        last = frame.delivery_tag or 0
        outcome = Outcome.STORED if isinstance(frame, Basic.Ack) else Outcome.REFUSED
        tags = [last]
        if frame.multiple:
            tags = list(itertools.takewhile(lambda tag: tag <= last, self._outcomes))
        for tag in tags:
            waiting = self._outcomes.pop(tag, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(outcome)
            if tag in self._returnable_ids:
                self._forget_returnable(tag)

    def _on_returned(self, message: DeliveredMessage) -> None:
        returnable = self._returnable.get(str(message.header.properties.message_id))
        waiting = self._outcomes.get(returnable.tag) if returnable else None
        if waiting is not None and not waiting.done():
            waiting.set_result(Outcome.UNROUTED)

    def _forget_returnable(self, tag: int) -> None:
        self._returnable.pop(self._returnable_ids.pop(tag)).is_known.set()

    # Consuming

    async def consume(self, queue: str, receiver: Receiver, *, discards: bool = False) -> str:
        """Begin to consume; return the consumer's tag.

        Args:
            queue: From which queue.
            receiver: Called with each message, from the task that reads the connection.
            discards: Whether a message that cannot be taken is dropped, rather than returned to
                the queue.
        """
        tag = secrets.token_hex(8)
        self._receivers[tag] = receiver
        if discards:
            self._discarding.add(tag)
        await self.basic_consume(queue, _not_called, consumer_tag=tag)
        return tag

    def unsettled_after(self, delivery_tag: int) -> int:
        """Return how many later deliveries are with this process, as far as the broker knows."""
        first = max(delivery_tag, self._settled_up_to)
        return self.last_received - first - sum(tag > first for tag in self._settled)

    def withhold_acks(self) -> None:
        """Ack nothing until `send_acks`, so that the broker has no more room for deliveries."""
        self._are_acks_withheld = True

    def send_acks(self) -> None:
        """Ack what was withheld, ahead of all that is settled from now on."""
        self._are_acks_withheld = False
        self._write_acks()
        self._write_soon()

    async def flush(self, timeout: float) -> None:
        """Send the acks that were withheld, and wait until the connection has them.

        It waits for `timeout` seconds at most.
        """
        self.send_acks()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._is_idle.is_set():
                    await self._is_idle.wait()

    def ack(self, delivery_tag: int) -> None:
        """Settle a delivery as handled."""
        self._acked.add(delivery_tag)
        self._write_soon()

    def nack(self, delivery_tag: int) -> None:
        """Give a delivery back untouched."""
        self._settle(delivery_tag, Basic.Nack(delivery_tag=delivery_tag, requeue=True))

    def reject(self, delivery_tag: int) -> None:
        """Give a delivery back as tried."""
        self._settle(delivery_tag, Basic.Reject(delivery_tag=delivery_tag, requeue=True))

    def _settle(self, delivery_tag: int, method: Basic.Nack | Basic.Reject | Basic.Ack) -> None:
        self._settled.add(delivery_tag)
        self.settled_at = self.loop.time()
        self._write(pamqp.frame.marshal(method, self.number))

    def _write_acks(self) -> None:
        """Write one ack for all deliveries up to the first that is unsettled, and one for each of
        the others.
        """
        if self._are_acks_withheld:
            return
        acked, self._acked = self._acked, set()
        last = 0
        while (tag := self._settled_up_to + 1) in acked or tag in self._settled:
            if tag in acked:
                acked.discard(tag)
                last = tag
            self._settled.discard(tag)
            self._settled_up_to = tag
        if last:
            self.settled_at = self.loop.time()
            # What was settled otherwise in between was so on this channel, and before.
            method = Basic.Ack(delivery_tag=last, multiple=True)
            self._unwritten.append(pamqp.frame.marshal(method, self.number))
        for tag in acked:
            self._settle(tag, Basic.Ack(delivery_tag=tag))

    @property
    def is_message_awaited(self) -> bool:
        """Whether a message has begun to come in."""
        return self._incoming is not None

    def take_in(self, frame: FrameType) -> bool:
        """Take in a frame that was read, if it is one of a message or of an answer to one."""
        incoming = self._incoming
        if incoming is not None:
            if incoming.add(frame):
                self._incoming = None
                self._hand_on(incoming)
            return True
        if isinstance(frame, Basic.Deliver):
            if frame.consumer_tag not in self._receivers:
                return False
            self._incoming = _Incoming(frame)
            self.last_received = frame.delivery_tag or 0
            return True
        if isinstance(frame, Basic.Return):
            self._incoming = _Incoming(frame)
            return True
        if isinstance(frame, Basic.Ack | Basic.Nack):
            self._on_outcome(frame)
            return True
        if isinstance(frame, ChannelMethods.Close):
            self.give_up()  # for the driver answers it
        return False

    def _hand_on(self, incoming: _Incoming) -> None:
        message = incoming.message(self)
        if isinstance(incoming.method, Basic.Return):
            self._on_returned(message)
            return
        if isinstance(message.header, UnreadableHeader):
            # Rejected too often, the queue makes it a dead letter.
            _log.error(
                "The properties of an event cannot be decoded; it is rejected.",
                reason=reason(message.header.error),
                exchange=message.exchange,
                routing_key=message.routing_key,
            )
            self._reject_untaken(incoming.method)
            return
        try:
            self._receivers[str(incoming.method.consumer_tag)](message)
        except Exception:
            # Raised further, it would end the connection for all. Rejected too often, the queue
            # makes it a dead letter.
            _log.exception("An event could not be received; it will be redelivered.")
            self._reject_untaken(incoming.method)

    def _reject_untaken(self, method: Basic.Deliver) -> None:
        tag = method.delivery_tag or 0
        if method.consumer_tag in self._discarding:
            self._settle(tag, Basic.Reject(delivery_tag=tag, requeue=False))
        else:
            self.reject(tag)


@attrs.frozen
class _Returnable:
    """A mandatory message of which the broker has not said what became of it."""

    tag: int
    is_known: asyncio.Event = attrs.field(factory=asyncio.Event)


class _Incoming:
    """A message of which not all frames have come."""

    def __init__(self, method: Basic.Deliver | Basic.Return) -> None:
        self.method = method
        self._header: ContentHeader | None = None
        self._bodies: list[bytes] = []
        self._missing = 0

    def add(self, frame: FrameType) -> bool:
        """Add the next frame; return whether it is the last.

        Raises:
            InvalidFrameError: It is none of a message (AMQP 0-9-1, section 4.2.6).
        """
        if isinstance(frame, ContentBody) and self._header is not None:
            self._bodies.append(frame.value)
            self._missing -= len(frame.value)
        elif isinstance(frame, ContentHeader) and self._header is None:
            self._header = frame
            self._missing = frame.body_size
        else:
            raise InvalidFrameError(frame)
        return self._missing <= 0

    def message(self, channel: Channel) -> DeliveredMessage:
        """Return the message, once it is whole."""
        return DeliveredMessage(
            delivery=self.method,
            header=cast("ContentHeader", self._header),
            body=self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies),
            channel=channel,
        )


async def _not_called(_: DeliveredMessage) -> None:
    """Stand where the driver wants a consumer."""


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


# The channel that was opened last on each connection
_last_numbers: weakref.WeakKeyDictionary[AbstractConnection, int] = weakref.WeakKeyDictionary()


def _free_number(connection: AbstractConnection) -> int:
    # The one that was free for longest: the driver frees a number before it has written its answer
    # to the broker's Channel.Close, and a Channel.Open ahead of that would end the connection.
    last = _last_numbers.get(connection, 0)
    most = connection.connection_tune.channel_max or _MOST_CHANNELS
    numbers = itertools.chain(range(last + 1, most + 1), range(1, last + 1))
    number = next((number for number in numbers if number not in connection.channels), None)
    if number is None:
        raise NoFreeChannel(most)
    _last_numbers[connection] = number
    return number


def _is_at_once(waiting: Coroutine[Any, Any, None]) -> bool:
    """Whether there is nothing to wait for, found out without a task."""
    try:
        waiting.send(None)
    except StopIteration:
        return True
    waiting.close()
    return False
