"""`NotedDelivery`: the delivery of an event whose last attempt is noted at the broker.

The attempt number includes every return to the queue, and RabbitMQ does not know which of a lost
worker's events a handler had started. So the transport notes the last attempt before it starts. The
note is an exchange that is named after the event, because a client can check whether an exchange
exists. An event becomes a dead letter only if its note exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiormq.exceptions import ChannelNotFoundEntity

from lightbus.exceptions import TransportError
from lightbus.log import get_logger
from lightbus.transport.contract import Delivery
from lightbus.transport.failure import Failure
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import AMQPChannel, run_on_new_channel
from lightbus_rabbitmq.topology.declarations import Exchange

T = TypeVar("T")

_log = get_logger(__name__)


class NotedDelivery(Delivery):
    """A delivery that removes the note of its last attempt when it is settled.

    Args:
        delivery: What is settled. It removes the note where it is requeued or dead-lettered.
        note: The note.
    """

    def __init__(self, delivery: Delivery, note: Note) -> None:
        self.message = delivery.message
        self.attempt = delivery.attempt
        self.redeliveries = delivery.redeliveries
        self.first_failed_at = delivery.first_failed_at
        self._delivery = delivery
        self._note = note

    async def ack(self) -> None:
        # Removed first. Otherwise, if the acknowledgement is lost, a handled event would become a
        # dead letter.
        await self._note.remove_quietly()
        await self._delivery.ack()

    async def requeue(self) -> None:
        await self._delivery.requeue()

    async def retry(self, *, after: float, counts: bool = True) -> None:
        await self._note.remove()
        await self._delivery.retry(after=after, counts=counts)

    async def dead_letter(self, failure: Failure) -> None:
        await self._delivery.dead_letter(failure)


class Note:
    """The note that the last attempt at one event has started.

    Args:
        link: The connection for it.
        name: The exchange that is the note.
        timeout: How long the broker may take, in seconds.
    """

    def __init__(self, link: ReconnectingConnection, name: str, *, timeout: float) -> None:
        self._link = link
        self._exchange = Exchange(name, "fanout")
        self._timeout = timeout
        self._was_missing = False

    async def make(self) -> bool:
        """Make the note; return whether there was none before the first call.

        Raises:
            TransportError: The broker did not confirm.
        """

        async def is_there(channel: AMQPChannel) -> bool:
            try:
                await self._exchange.declare(channel, passive=True)
            except ChannelNotFoundEntity:
                return False
            return True

        # An earlier call can have made the note, and lost the broker's answer.
        if not self._was_missing:
            if await self._do(is_there, "to look for the note of a last attempt"):
                return False
            self._was_missing = True
        await self._do(self._exchange.declare, "to note a last attempt")
        return True

    async def remove(self) -> None:
        """Remove the note.

        Raises:
            TransportError: The broker did not confirm.
        """

        async def delete(channel: AMQPChannel) -> None:
            await channel.exchange_delete(self._exchange.name)

        await self._do(delete, "to remove the note of a last attempt")

    async def remove_quietly(self) -> None:
        """Remove the note, and log where that fails."""
        try:
            await self.remove()
        except TransportError as error:
            _log.warning(
                "The note of a last attempt could not be removed.",
                exchange=self._exchange.name,
                reason=str(error),
            )

    async def _do(self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str) -> T:
        return await self._link.until_connected(
            lambda: run_on_new_channel(self._link, operation, doing=doing, timeout=self._timeout),
            timeout=self._timeout,
        )


MakeNote = Callable[[str], Note]
