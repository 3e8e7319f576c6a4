"""`RabbitMQStream`: a listener's consumer, restored whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, Self

from aiormq.abc import DeliveredMessage

from lightbus.exceptions import TransportError
from lightbus.log import get_logger
from lightbus.transport.contract import DeliveryStream
from lightbus.transport.kit import SharedTask
from lightbus.transport.records import Subscription
from lightbus_rabbitmq import names
from lightbus_rabbitmq.delivery import RabbitMQDelivery
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, NoFreeChannel, translate_error
from lightbus_rabbitmq.driver.waiting import Backoff, close_quietly, run_while_connected
from lightbus_rabbitmq.last_attempt import MakeNote
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.settings import RabbitMQSettings
from lightbus_rabbitmq.topology.declare import declare_subscription

_log = get_logger(__name__)

# Half of RabbitMQ's default consumer_timeout, in seconds: it closes the channel of a consumer that
# has held a delivery for longer. https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
_LONGEST_WAIT = 900

# How long, in seconds, events take to arrive at most once there is room for them.
_ARRIVAL_TIMEOUT = 0.1

# How long, in seconds, a listener that starts waits for others to free a channel.
_CHANNEL_TIMEOUT = 2.0

# RabbitMQ holds back what a channel asks of a quorum queue beyond so many commands that are under
# way (its quorum_commands_soft_limit). They change places there, and are lost with the channel.
_MOST_COMMANDS = 32
_COMMANDS_PAUSE = 0.01


class RabbitMQStream(DeliveryStream):
    """The deliveries of one subscription, on a channel of its own."""

    def __init__(
        self,
        link: ReconnectingConnection,
        publisher: Publisher,
        settings: RabbitMQSettings,
        subscription: Subscription,
        *,
        make_note: MakeNote,
    ) -> None:
        self.queue = names.listener_queue(subscription)
        self._subscription = subscription
        self._link = link
        self._publisher = publisher
        self._settings = settings
        self._make_note = make_note
        self._channel: Channel | None = None
        self._consumer_tag = ""
        # How many events the consumer takes at once. It begins with one, which is held until the
        # consumer is replaced by one with the prefetch that this event admits.
        self._prefetch = 1
        self._started_after = 0
        self._started_at = 0.0
        self._prefetch_for_returned = subscription.concurrency
        self._full_prefetch = _full_prefetch(settings, subscription)
        self._held: list[RabbitMQDelivery] = []
        self._is_lost = False
        self._changed = asyncio.Event()
        self._arrived = asyncio.Event()
        # Never longer than the prefetch, so it needs no bound of its own. None marks the end.
        self._received: asyncio.Queue[RabbitMQDelivery | None] = asyncio.Queue()
        self._error: TransportError | None = None
        self._backoff = Backoff()
        self._why_not_restored = ""
        self.is_closed = False
        self._is_ended = False
        self._stopping = SharedTask(self._stop)
        self._closing = SharedTask(self._close)
        self._keeper: asyncio.Task[None] | None = None
        self._taking_more: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Declare the subscription and start to consume.

        Raises:
            TopologyMismatch: The broker holds an object with other settings.
            TransportRefused: The broker's permissions do not allow it.
            NoFreeChannel: The other listeners use all channels that the broker allows.
        """
        await self._consume_again(channel_timeout=_CHANNEL_TIMEOUT)
        self._keeper = asyncio.create_task(self._keep())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RabbitMQDelivery:
        while True:
            # Once ended, what is still held goes back to the broker.
            delivery = None if self._is_ended else await self._received.get()
            if delivery is None:
                self._received.put_nowait(None)  # for the next task that waits
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if not delivery.is_lost:
                return delivery

    @property
    def problem(self) -> str | None:
        """Why no events are taken, in a sentence; None where they are."""
        if self._stopping.has_started:
            return None
        if self._error is not None:
            return f"Listener queue {self.queue!r} is not consumed from: {self._error}"
        if self._is_lost or self._channel is None or self._channel.is_lost:
            why = f" ({self._why_not_restored})" if self._why_not_restored else ""
            lost = f"Listener queue {self.queue!r} has lost its consumer"
            return f"{lost}, which is being restored{why}."
        return None

    async def stop(self) -> None:
        await self._stopping()

    async def aclose(self) -> None:
        await self._closing()

    async def _stop(self) -> None:
        self._end(self._error)
        await self._stop_keeper()
        self._release_held()
        not_begun = self._take_received()
        try:
            if self._channel is not None:
                await self._stop_consumer(self._channel)
        finally:
            not_begun += self._take_received()
            self._received.put_nowait(None)
        for number, delivery in enumerate(not_begun, 1):
            if not delivery.is_lost:
                await delivery.requeue()
            if number % _MOST_COMMANDS == 0:
                await asyncio.sleep(_COMMANDS_PAUSE)

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        # The broker answers once it has seen every settlement, and then takes back the rest.
        if self._channel is not None:
            await close_quietly(self._channel, self._settings.operation_timeout)

    def _end(self, error: TransportError | None = None) -> None:
        self._is_ended = True
        self._error = error
        self._received.put_nowait(None)

    async def _stop_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._taking_more is not None:
            await asyncio.gather(self._taking_more, return_exceptions=True)

    def _take_received(self) -> list[RabbitMQDelivery]:
        received = [self._received.get_nowait() for _ in range(self._received.qsize())]
        return [delivery for delivery in received if delivery is not None]

    async def _stop_consumer(self, channel: Channel) -> None:
        # What is on its way to a consumer that is cancelled is returned, and counted, ahead of
        # events that came before it. So it is left no room, and time to arrive.
        channel.withhold_acks()
        try:
            await self._until_full(channel)
            await self._cancel_consumer(channel)
        finally:
            channel.send_acks()

    async def _until_full(self, channel: Channel) -> None:
        has_had_room_since = max(channel.settled_at, self._started_at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(has_had_room_since + _ARRIVAL_TIMEOUT):
                while not channel.is_lost and not self._is_full(channel):
                    self._arrived.clear()
                    await self._arrived.wait()

    def _is_full(self, channel: Channel) -> bool:
        return channel.unsettled_after(self._started_after) >= self._prefetch

    async def _cancel_consumer(self, channel: Channel) -> None:
        if channel.is_lost:
            return
        timeout = self._settings.operation_timeout

        async def cancel() -> None:
            # Inside the task: cancelled before its first step, it would leave this unawaited.
            await run_while_connected(channel.connection, channel.basic_cancel(self._consumer_tag))

        cancelling = asyncio.create_task(cancel())
        try:
            await asyncio.wait({cancelling}, timeout=timeout)
            if not cancelling.done():
                # Cancelled, the driver closes the channel. What was acknowledged goes first.
                await channel.flush(timeout)
                channel.give_up()
        finally:
            cancelling.cancel()
            await asyncio.wait({cancelling})
        _raise_foreign(cancelling)

    async def _keep(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._is_lost:
                    await self._restore()
                elif self._held and self._channel is not None:
                    # Cancelled halfway, the driver would close the channel, and with it give back
                    # what is being handled.
                    self._taking_more = asyncio.create_task(self._take_more(self._channel))
                    await asyncio.shield(self._taking_more)
        except TransportError as error:
            self._end(error)

    async def _restore(self) -> None:
        wait = self._backoff.after_loss()
        _log.warning(
            "A listener lost its consumer; restoring it.",
            next_try_in=round(wait, 1),
            **self._fields(),
        )
        if self._channel is not None:
            await close_quietly(self._channel, self._settings.operation_timeout)
        # What ended the connection may be one of the next events. Taken alone, it is the only one
        # that the broker counts as returned.
        self._prefetch_for_returned = 1
        await asyncio.sleep(wait)
        await self._consume_again()
        _log.info("A listener's consumer is restored.", **self._fields())

    async def _take_more(self, channel: Channel) -> None:
        """Replace the consumer by one with the prefetch that the event which is held admits."""
        prefetch = self._prefetch_after(self._held[0])
        # Not the other way about: the broker keeps no order between two consumers.
        await self._stop_consumer(channel)
        self._release_held()
        if self._is_ended:
            return
        if channel.is_lost:
            self._note_lost(channel)
            return
        try:
            await self._start_consumer(channel, prefetch)
        except ConnectionLost:
            self._note_lost(channel)

    def _is_to_be_replaced(self, channel: Channel, delivery: RabbitMQDelivery) -> bool:
        # One that has room for more would take no more if it had more room.
        return self._prefetch < self._prefetch_after(delivery) and self._is_full(channel)

    def _prefetch_after(self, delivery: RabbitMQDelivery) -> int:
        # What ended another worker may be among the events that were returned. No more are taken
        # with them than begin at once, so that no others are returned, and counted, when it ends
        # this one.
        return self._prefetch_for_returned if delivery.redeliveries > 0 else self._full_prefetch

    def _release_held(self) -> None:
        for delivery in self._held:
            self._received.put_nowait(delivery)
        self._held.clear()

    async def _consume_again(self, *, channel_timeout: float = math.inf) -> None:
        gives_up_at = time.monotonic() + channel_timeout
        while True:
            try:
                await self._consume()
                break
            except ConnectionLost as error:
                if isinstance(error, NoFreeChannel) and time.monotonic() > gives_up_at:
                    raise
                self._why_not_restored = str(error)
            wait = self._backoff.after_failure()
            _log.warning(
                "A listener could not start to consume; trying again.",
                reason=self._why_not_restored,
                next_try_in=round(wait, 1),
                **self._fields(),
            )
            await asyncio.sleep(wait)
        self._backoff.note_success()
        self._why_not_restored = ""

    async def _consume(self) -> None:
        await declare_subscription(
            self._link, self._subscription, timeout=self._settings.operation_timeout
        )
        channel = await self._link.channel(confirms=False)
        channel.closing.add_done_callback(lambda _: self._note_lost(channel))
        channel.on_consumer_cancel_callbacks.add(lambda _: self._note_lost(channel))
        self._channel = channel
        self._is_lost = False
        self._held.clear()
        self._changed.clear()
        await self._start_consumer(channel, 1)

    def _note_lost(self, channel: Channel) -> None:
        if channel is self._channel:
            self._is_lost = True
            self._changed.set()

    async def _start_consumer(self, channel: Channel, prefetch: int) -> None:
        self._prefetch = prefetch
        self._started_after = channel.last_received
        self._started_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                await run_while_connected(
                    channel.connection, channel.basic_qos(prefetch_count=prefetch)
                )
                tag = await run_while_connected(
                    channel.connection, channel.consume(self.queue, self._receiver(channel))
                )
        except TimeoutError as error:
            channel.give_up()
            await close_quietly(channel, self._settings.operation_timeout)
            raise ConnectionLost("RabbitMQ did not start a consumer in time") from error
        except (Exception, asyncio.CancelledError) as error:
            channel.give_up()  # cancelled, the driver closes it
            if meaning := translate_error(error, f"to consume from {self.queue!r}"):
                raise meaning from error
            raise
        self._consumer_tag = tag

    def _receiver(self, channel: Channel) -> Callable[[DeliveredMessage], None]:
        def receive(delivered: DeliveredMessage) -> None:
            delivery = RabbitMQDelivery(
                delivered, channel, self._publisher, self._subscription, self._make_note
            )
            self._arrived.set()
            if self._is_ended:
                self._received.put_nowait(delivery)
            # RabbitMQ 3.10.8 sends two where it may send one, once it gave an event up.
            elif self._held or self._is_to_be_replaced(channel, delivery):
                channel.withhold_acks()  # so that it stays full
                self._held.append(delivery)
                self._changed.set()
            else:
                self._received.put_nowait(delivery)

        return receive

    def _fields(self) -> dict[str, str]:
        return {
            "service": self._subscription.service_name,
            "listener": self._subscription.listener_name,
            "api": self._subscription.api_name,
        }


def _raise_foreign(cancelling: asyncio.Task[Any]) -> None:
    """Raise what ended the cancelling of a consumer, where it is not that the channel is gone."""
    if cancelling.cancelled():
        return
    error = cancelling.exception()
    if error is None or isinstance(error, ConnectionLost):
        return
    if translate_error(error, "to cancel a consumer") is None:
        raise error


def _full_prefetch(settings: RabbitMQSettings, subscription: Subscription) -> int:
    # What waits behind slow handlers must not run into the broker's consumer timeout.
    one_handler = max(int(_LONGEST_WAIT / subscription.acknowledgement_timeout), 1)
    concurrency = subscription.concurrency
    return max(min(settings.prefetch, one_handler * concurrency), concurrency)
