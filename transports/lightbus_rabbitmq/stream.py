"""`RabbitMQStream`: the deliveries of a listener, whose consumer is restored when it is lost."""

from __future__ import annotations

import asyncio
import math
import time

from aiormq.abc import DeliveredMessage

from lightbus.exceptions import TransportError
from lightbus.log import get_logger
from lightbus.transport.kit import BufferedStream, SharedTask
from lightbus.transport.records import Subscription
from lightbus_rabbitmq import names
from lightbus_rabbitmq.consumer import Consumer
from lightbus_rabbitmq.delivery import RabbitMQDelivery
from lightbus_rabbitmq.driver.backoff import ReconnectBackoff
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, NoFreeChannel
from lightbus_rabbitmq.driver.waiting import close_quietly
from lightbus_rabbitmq.last_attempt import MakeNote
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.settings import RabbitMQSettings
from lightbus_rabbitmq.topology.declare import declare_subscription

_log = get_logger(__name__)

# Half of RabbitMQ's default consumer_timeout, in seconds. RabbitMQ closes the channel of a consumer
# that holds a delivery for longer. https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
_MAX_HOLDING_TIME = 900

# How long a listener that starts waits for others to free a channel, in seconds
_CHANNEL_TIMEOUT = 2.0

# A channel may have this many commands to a quorum queue in flight (quorum_commands_soft_limit).
# RabbitMQ delays further commands, may reorder them, and loses them with the channel.
_MAX_COMMANDS = 32
_COMMANDS_PAUSE = 0.01


class RabbitMQStream(BufferedStream[RabbitMQDelivery]):
    """The deliveries of one subscription, on a channel of its own.

    The consumer starts with a prefetch of 1. Its first event is held until the prefetch that this
    event allows is set: a redelivered event may have caused the loss of its worker.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        publisher: Publisher,
        settings: RabbitMQSettings,
        subscription: Subscription,
        *,
        make_note: MakeNote,
    ) -> None:
        super().__init__()
        self.queue = names.listener_queue(subscription)
        self.is_closed = False
        self._subscription = subscription
        self._connection = connection
        self._publisher = publisher
        self._settings = settings
        self._make_note = make_note
        self._consumer: Consumer | None = None
        self._prefetch_if_redelivered = subscription.concurrency
        self._full_prefetch = _full_prefetch(settings, subscription)
        self._held: list[RabbitMQDelivery] = []
        self._unreceived: list[RabbitMQDelivery] = []
        self._is_lost = False
        self._changed = asyncio.Event()
        self._backoff = ReconnectBackoff()
        self._restore_error = ""
        self._stopping = SharedTask(self._stop)
        self._closing = SharedTask(self._close)
        self._keeper: asyncio.Task[None] | None = None
        self._prefetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Declare the subscription and start to consume.

        Raises:
            TopologyMismatch: The broker has an object with other settings.
            TransportRefused: The broker's permissions do not allow it.
            NoFreeChannel: The other listeners use all channels that the broker allows.
        """
        await self._consume_again(channel_timeout=_CHANNEL_TIMEOUT)
        self._keeper = asyncio.create_task(self._keep())

    async def __anext__(self) -> RabbitMQDelivery:
        while True:
            delivery = await super().__anext__()
            if not delivery.is_lost:
                return delivery

    def check_health(self) -> str | None:
        """Return a sentence that says why no events are consumed; None if they are."""
        if self._stopping.has_started:
            return None
        if self._error is not None:
            return f"Listener queue {self.queue!r} is not consumed from: {self._error}"
        if self._is_lost or self._consumer is None or self._consumer.channel.is_lost:
            reason = f" ({self._restore_error})" if self._restore_error else ""
            lost = f"Listener queue {self.queue!r} has lost its consumer"
            return f"{lost}, which is being restored{reason}."
        return None

    async def stop(self) -> None:
        await self._stopping()

    async def aclose(self) -> None:
        await self._closing()

    async def _stop(self) -> None:
        self._unreceived += self.end()
        await self._stop_keeper()
        self._release_held()
        try:
            if self._consumer is not None:
                await self._consumer.stop()
        finally:
            self._unreceived += self.end()
        for number, delivery in enumerate(self._unreceived, 1):
            if not delivery.is_lost:
                await delivery.requeue()
            if number % _MAX_COMMANDS == 0:
                await asyncio.sleep(_COMMANDS_PAUSE)

    async def _close(self) -> None:
        await self.stop()
        self.is_closed = True
        # RabbitMQ answers after it has handled every settlement, and then requeues the rest.
        if self._consumer is not None:
            await close_quietly(self._consumer.channel, self._settings.operation_timeout)

    async def _stop_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._prefetching is not None:
            await asyncio.gather(self._prefetching, return_exceptions=True)

    async def _keep(self) -> None:
        """Restore the consumer when it is lost, and set its full prefetch."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._is_lost:
                    await self._restore()
                elif self._held and self._consumer is not None:
                    # Shielded: cancelled in between, the driver would close the channel, and the
                    # broker would requeue events that are being handled.
                    self._prefetching = asyncio.create_task(self._set_prefetch(self._consumer))
                    await asyncio.shield(self._prefetching)
        except TransportError as error:
            self._unreceived += self.end(error)

    async def _restore(self) -> None:
        wait = self._backoff.after_loss()
        _log.warning(
            "Consumer lost; restoring it.", next_try_in=round(wait, 1), **self._log_fields()
        )
        if self._consumer is not None:
            await close_quietly(self._consumer.channel, self._settings.operation_timeout)
        # One of the next events may have caused the loss. With a prefetch of 1, it is the only one
        # that the broker counts as redelivered.
        self._prefetch_if_redelivered = 1
        await asyncio.sleep(wait)
        await self._consume_again()
        _log.info("Consumer restored.", **self._log_fields())

    async def _set_prefetch(self, consumer: Consumer) -> None:
        """Restart the consumer with the prefetch that the event which is held allows."""
        prefetch = self._prefetch_after(self._held[0])
        # The old consumer stops first, because the broker keeps no order between two consumers.
        await consumer.stop()
        self._release_held()
        if self.is_ended:
            return
        if consumer.channel.is_lost:
            self._note_lost(consumer)
            return
        try:
            await consumer.start(prefetch)
        except ConnectionLost:
            self._note_lost(consumer)

    def _prefetch_after(self, delivery: RabbitMQDelivery) -> int:
        # A redelivered event may have caused the loss of its worker, and may do so again. Only as
        # many events as are handled at once are prefetched with it, because the broker counts all
        # of them as redelivered.
        if delivery.redeliveries > 0:
            return self._prefetch_if_redelivered
        return self._full_prefetch

    def _release_held(self) -> None:
        for delivery in self._held:
            self.feed(delivery)
        self._held.clear()

    async def _consume_again(self, *, channel_timeout: float = math.inf) -> None:
        deadline = time.monotonic() + channel_timeout
        while True:
            try:
                await self._consume()
                break
            except ConnectionLost as error:
                if isinstance(error, NoFreeChannel) and time.monotonic() > deadline:
                    raise
                self._restore_error = str(error)
            wait = self._backoff.after_failure()
            _log.warning(
                "Consumer could not be started; trying again.",
                reason=self._restore_error,
                next_try_in=round(wait, 1),
                **self._log_fields(),
            )
            await asyncio.sleep(wait)
        self._backoff.note_success()
        self._restore_error = ""

    async def _consume(self) -> None:
        timeout = self._settings.operation_timeout
        await declare_subscription(self._connection, self._subscription, timeout=timeout)
        channel = await self._connection.channel(confirms=False)
        consumer = Consumer(channel, self.queue, self._receive, timeout=timeout)
        channel.closing.add_done_callback(lambda _: self._note_lost(consumer))
        channel.on_consumer_cancel_callbacks.add(lambda _: self._note_lost(consumer))
        self._consumer = consumer
        self._is_lost = False
        self._held.clear()
        self._changed.clear()
        await consumer.start(1)

    def _note_lost(self, consumer: Consumer) -> None:
        if consumer is self._consumer:
            self._is_lost = True
            self._changed.set()

    def _receive(self, consumer: Consumer, delivered: DeliveredMessage) -> None:
        delivery = RabbitMQDelivery(
            delivered, consumer.channel, self._publisher, self._subscription, self._make_note
        )
        consumer.arrived.set()
        if self.is_ended:
            self.feed(delivery)
        # Despite a prefetch of 1, RabbitMQ 3.10.8 delivers two events after dead-lettering one.
        elif self._held or self._needs_larger_prefetch(consumer, delivery):
            consumer.channel.withhold_acks()  # so that the consumer stays full
            self._held.append(delivery)
            self._changed.set()
        else:
            self.feed(delivery)

    def _needs_larger_prefetch(self, consumer: Consumer, delivery: RabbitMQDelivery) -> bool:
        # A larger prefetch has no effect while the consumer is not full.
        return consumer.prefetch < self._prefetch_after(delivery) and consumer.is_full

    def _log_fields(self) -> dict[str, str]:
        return {
            "service": self._subscription.service_name,
            "listener": self._subscription.listener_name,
            "api": self._subscription.api_name,
        }


def _full_prefetch(settings: RabbitMQSettings, subscription: Subscription) -> int:
    # Events that wait behind slow handlers must not reach the broker's consumer timeout.
    per_handler = max(int(_MAX_HOLDING_TIME / subscription.acknowledgement_timeout), 1)
    concurrency = subscription.concurrency
    return max(min(settings.prefetch, per_handler * concurrency), concurrency)
