"""`RabbitMQDelivery`: a delivery from a listener's queue, and how it is settled."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiormq.abc import DeliveredMessage

from lightbus.exceptions import TransportError
from lightbus.log import get_logger
from lightbus.transport.contract import Delivery
from lightbus.transport.failure import Failure
from lightbus.transport.features import LastAttempt
from lightbus.transport.kit import SettleOnce, check_delay
from lightbus.transport.records import EventRequeued, Subscription
from lightbus_rabbitmq import copies, dead_letter_headers, headers, names
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.last_attempt import LastAttemptNote, MakeNote, NotedDelivery
from lightbus_rabbitmq.publisher import Publisher

_log = get_logger(__name__)

# Older versions of RabbitMQ count a nack as a redelivery.
_NACKS_NOT_COUNTED_SINCE = (4, 3)


class RabbitMQDelivery(SettleOnce, LastAttempt):
    """A delivery on one channel. If the channel is lost, the broker redelivers the event."""

    # A class attribute, because very few deliveries have a note
    _note: LastAttemptNote | None = None

    def __init__(
        self,
        delivered: DeliveredMessage,
        channel: Channel,
        publisher: Publisher,
        subscription: Subscription,
        make_note: MakeNote,
    ) -> None:
        api_name = subscription.api_name
        self.message = headers.message_of(delivered, api_name)
        self.redeliveries = headers.redeliveries_of(delivered, channel.connection.server_properties)
        self.attempt = headers.attempt_of(delivered, api_name) + self.redeliveries
        self.first_failed_at = headers.first_failed_at(delivered, api_name)
        self._delivered = delivered
        self._channel = channel
        self._publisher = publisher
        self._subscription = subscription
        self._make_note = make_note

    @property
    def is_lost(self) -> bool:
        """Whether the channel was lost, so that the broker requeues the event."""
        return self._channel.is_lost

    async def ack(self) -> None:
        self._settle(self._channel.ack)

    async def last_attempt(self, max_attempts: int) -> Delivery | None:
        event_id = self._delivered.header.properties.message_id
        if not event_id:
            # Without an id, each delivery of the event gets a new one. The copy has the id of this
            # delivery.
            await self._copy_and_ack("", self._queue, **{headers.ATTEMPT: self.attempt})
            raise EventRequeued
        name = names.last_attempt_exchange(self._queue, event_id)
        self._note = self._note or self._make_note(name)
        return NotedDelivery(self, self._note) if await self._note.create() else None

    async def requeue(self) -> None:
        # Creating the note may have been interrupted, so it may exist.
        if self._note is not None:
            await self._note.delete_quietly()
        # A nack keeps the event's place, but old versions of RabbitMQ count it. Two of them would
        # look like the loss of two workers. So the second time, a copy is sent that has only the
        # certain attempts.
        if self.redeliveries > 0 and self._are_nacks_counted:
            certain = self.attempt - self.redeliveries
            try:
                await self._copy_and_ack("", self._queue, **{headers.ATTEMPT: certain})
                return
            except TransportError as error:
                _log.warning(
                    "Copy not sent; the event is requeued and counted as redelivered.",
                    reason=str(error),
                    **self._log_fields(),
                )
        self._settle(self._channel.nack)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._subscription, after, counts=counts)
        if after == 0:
            # From version 4.3 on, RabbitMQ counts a reject, and does not count a nack.
            self._settle(self._channel.reject)
            return
        added: dict[str, Any] = {headers.ATTEMPT: self.attempt + counts}
        if counts:
            first_failed_at = self.first_failed_at or datetime.now(UTC)
            added[headers.FIRST_FAILED_AT] = first_failed_at.isoformat()
        routing_key = f"{names.in_milliseconds(after)}.{self._queue}"
        await self._copy_and_ack(names.DELAY_EXCHANGE, routing_key, **added)

    async def dead_letter(self, failure: Failure) -> None:
        added = dead_letter_headers.failure_headers(
            failure,
            self.message,
            queue=self._queue,
            frame_size=self._frame_size,
        )
        await self._copy_and_ack(
            "", names.dead_letter_queue(self._subscription.service_name), **added
        )
        if self._note is not None:
            await self._note.delete_quietly()

    async def _copy_and_ack(self, exchange: str, routing_key: str, **added: Any) -> None:
        # The copy is confirmed before the original is acknowledged, so that no event is lost.
        if not self.can_settle() or self._check_lost():
            return
        properties = copies.copy_properties(
            self._delivered, self.message, frame_size=self._frame_size, **added
        )
        await self._publisher.send_copy(exchange, routing_key, self.message.body, properties)
        await self.ack()

    def _settle(self, settle: Callable[[int], None]) -> None:
        if not self.can_settle() or self._check_lost():
            return
        self.is_settled = True
        settle(int(self._delivered.delivery_tag or 0))

    def _check_lost(self) -> bool:
        """Return whether the channel was lost, and log it."""
        if not self.is_lost:
            return False
        self.is_settled = True
        _log.warning(
            "Connection lost while an event was handled; the event will be redelivered.",
            **self._log_fields(),
        )
        return True

    @property
    def _are_nacks_counted(self) -> bool:
        version = str(self._channel.connection.server_properties.get("version", ""))
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None:
            return True
        return (int(numbers[1]), int(numbers[2])) < _NACKS_NOT_COUNTED_SINCE

    @property
    def _queue(self) -> str:
        return names.listener_queue(self._subscription)

    @property
    def _frame_size(self) -> int:
        return int(self._channel.connection.connection_tune.frame_max)

    def _log_fields(self) -> dict[str, Any]:
        return {
            "event_id": self.message.id,
            "api": self.message.api_name,
            "event_name": self.message.event_name,
            "listener": self._subscription.listener_name,
            "attempt": self.attempt,
        }
