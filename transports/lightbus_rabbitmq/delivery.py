"""`RabbitMQDelivery`: one event from a listener's queue, and how each settlement is done."""

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
from lightbus.transport.kit import check_delay
from lightbus.transport.records import EventRequeued, Subscription
from lightbus_rabbitmq import dead_letter_headers, headers, names
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.last_attempt import MakeNote, Note, NotedDelivery
from lightbus_rabbitmq.publisher import Publisher

_log = get_logger(__name__)

# Older versions of RabbitMQ count a nack like any other return.
_NACKS_NOT_COUNTED_SINCE = (4, 3)


class RabbitMQDelivery(LastAttempt):
    """One delivery on one channel; when the channel is gone, the broker sends the event again."""

    # Of the class, because next to no delivery has one
    _note: Note | None = None

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
        self.redeliveries = headers.returns_of(delivered, channel.connection.server_properties)
        self.attempt = headers.attempt_of(delivered, api_name) + self.redeliveries
        self.first_failed_at = headers.first_failed_at(delivered, api_name)
        self._delivered = delivered
        self._channel = channel
        self._publisher = publisher
        self._subscription = subscription
        self._make_note = make_note
        self._is_settled = False

    @property
    def is_lost(self) -> bool:
        """Whether the broker has taken the event back."""
        return self._channel.is_lost

    async def ack(self) -> None:
        self._settle(self._channel.ack)

    async def last_attempt(self, max_attempts: int) -> Delivery | None:
        event_id = self._delivered.header.properties.message_id
        if not event_id:
            # Each delivery has another id, and other events may have the same body. A copy keeps
            # the id that this delivery has.
            await self._copy_and_ack("", self._queue, **{headers.ATTEMPT: self.attempt})
            raise EventRequeued
        name = names.last_attempt_exchange(self._queue, event_id)
        self._note = self._note or self._make_note(name)
        return NotedDelivery(self, self._note) if await self._note.make() else None

    async def requeue(self) -> None:
        # Also removed if making the note was interrupted, because it may exist.
        if self._note is not None:
            await self._note.remove_quietly()
        # A nack that is counted keeps the event's place. Counted twice, it would look like the loss
        # of two workers. So the second time, a copy is sent with the number of certain attempts.
        if self.redeliveries > 0 and self._are_nacks_counted:
            certain = self.attempt - self.redeliveries
            try:
                await self._copy_and_ack("", self._queue, **{headers.ATTEMPT: certain})
                return
            except TransportError as error:
                _log.warning("An event could not be renewed.", reason=str(error), **self._fields())
        self._settle(self._channel.nack)

    async def retry(self, *, after: float, counts: bool = True) -> None:
        check_delay(self._subscription, after, counts=counts)
        if after == 0:
            # From RabbitMQ 4.3 on, of the ways to return an event only a reject is counted.
            self._settle(self._channel.reject)
            return
        added: dict[str, Any] = {headers.ATTEMPT: self.attempt + counts}
        if counts:
            first_failed_at = self.first_failed_at or datetime.now(UTC)
            added[headers.FIRST_FAILED_AT] = first_failed_at.isoformat()
        routing_key = f"{names.in_milliseconds(after)}.{self._queue}"
        await self._copy_and_ack(names.DELAY_EXCHANGE, routing_key, **added)

    async def dead_letter(self, failure: Failure) -> None:
        story = dead_letter_headers.failure_headers(
            failure,
            self.message,
            queue=self._queue,
            frame_size=self._frame_size,
        )
        await self._copy_and_ack(
            "", names.dead_letter_queue(self._subscription.service_name), **story
        )
        if self._note is not None:
            await self._note.remove_quietly()

    async def _copy_and_ack(self, exchange: str, routing_key: str, **added: Any) -> None:
        # The copy is safe before the original goes: in between, both exist, never neither.
        if self._is_settled or self._is_lost_said():
            return
        properties = headers.copied(
            self._delivered, self.message, frame_size=self._frame_size, **added
        )
        await self._publisher.send_copy(exchange, routing_key, self.message.body, properties)
        await self.ack()

    def _settle(self, settle: Callable[[int], None]) -> None:
        if self._is_settled or self._is_lost_said():
            return
        self._is_settled = True
        settle(int(self._delivered.delivery_tag or 0))

    def _is_lost_said(self) -> bool:
        if self.is_lost:
            self._say_lost()
        return self.is_lost

    def _say_lost(self) -> None:
        self._is_settled = True
        _log.warning(
            "The connection was lost while an event was handled; the event will be redelivered.",
            **self._fields(),
        )

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

    def _fields(self) -> dict[str, Any]:
        return {
            "event_id": self.message.id,
            "api": self.message.api_name,
            "event_name": self.message.event_name,
            "listener": self._subscription.listener_name,
            "attempt": self.attempt,
        }
