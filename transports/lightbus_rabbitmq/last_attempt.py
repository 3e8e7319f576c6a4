"""`LastAttemptNote`: records at the broker that the last attempt at an event has started.

RabbitMQ counts redeliveries, and does not know which events of a lost worker a handler had started.
So the transport creates a note before the last attempt starts, and an event is dead-lettered only
if its note exists. The note is an exchange that is named after the event, because a client can
check whether an exchange exists.
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
    """A delivery that deletes the note of its last attempt when it is settled.

    Args:
        delivery: The delivery. It deletes the note itself if it is requeued or dead-lettered.
        note: The note.
    """

    def __init__(self, delivery: Delivery, note: LastAttemptNote) -> None:
        self.message = delivery.message
        self.attempt = delivery.attempt
        self.redeliveries = delivery.redeliveries
        self.first_failed_at = delivery.first_failed_at
        self._delivery = delivery
        self._note = note

    async def ack(self) -> None:
        # Deleted first. Otherwise, if the acknowledgement is lost, a handled event would be
        # dead-lettered.
        await self._note.delete_quietly()
        await self._delivery.ack()

    async def requeue(self) -> None:
        await self._delivery.requeue()

    async def retry(self, *, after: float, counts: bool = True) -> None:
        await self._note.delete()
        await self._delivery.retry(after=after, counts=counts)

    async def dead_letter(self, failure: Failure) -> None:
        await self._delivery.dead_letter(failure)


class LastAttemptNote:
    """The note that the last attempt at one event has started.

    Args:
        connection: The connection.
        name: The name of the exchange.
        timeout: How long the broker may take, in seconds.
    """

    def __init__(self, connection: ReconnectingConnection, name: str, *, timeout: float) -> None:
        self._connection = connection
        self._exchange = Exchange(name, "fanout")
        self._timeout = timeout
        self._was_missing = False

    async def create(self) -> bool:
        """Create the note; return whether it did not exist before the first call.

        Raises:
            TransportError: The broker did not confirm.
        """

        async def exists(channel: AMQPChannel) -> bool:
            try:
                await self._exchange.declare(channel, passive=True)
            except ChannelNotFoundEntity:
                return False
            return True

        # An earlier call may have created the note, and lost the broker's answer.
        if not self._was_missing:
            if await self._run(exists, "to look for the note of a last attempt"):
                return False
            self._was_missing = True
        await self._run(self._exchange.declare, "to note a last attempt")
        return True

    async def delete(self) -> None:
        """Delete the note.

        Raises:
            TransportError: The broker did not confirm.
        """

        async def delete(channel: AMQPChannel) -> None:
            await channel.exchange_delete(self._exchange.name)

        await self._run(delete, "to delete the note of a last attempt")

    async def delete_quietly(self) -> None:
        """Delete the note, and log an error."""
        try:
            await self.delete()
        except TransportError as error:
            _log.warning(
                "Note of a last attempt not deleted.",
                exchange=self._exchange.name,
                reason=str(error),
            )

    async def _run(self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str) -> T:
        return await self._connection.run_until_done(
            lambda: run_on_new_channel(
                self._connection, operation, doing=doing, timeout=self._timeout
            ),
            timeout=self._timeout,
        )


MakeNote = Callable[[str], LastAttemptNote]
