"""`Refill`: takes the events of one queue to another, each kept until its copy is safe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from aiormq.abc import DeliveredMessage

from lightbus_rabbitmq import headers
from lightbus_rabbitmq.claim import Claim
from lightbus_rabbitmq.connection import unless_lost
from lightbus_rabbitmq.errors import ConnectionLost, translated
from lightbus_rabbitmq.objects import Channel, Queue
from lightbus_rabbitmq.publisher import Publisher

# How many events are on their way at once. If the migration is killed, all of them are counted as
# returned to their queue.
_AT_ONCE = 32

# How often a queue that hands out nothing is asked whether it is empty, in seconds.
_PERIOD = 0.1


class Refill:
    """Moves events within one broker, in their order, with the numbers of their attempts.

    Args:
        claim: Of the migration.
        publisher: Sends the copies.
        timeout: How long the broker may take for one answer, in seconds.
        on_moved: Told of how many were moved, as they are.
    """

    def __init__(
        self,
        claim: Claim,
        publisher: Publisher,
        *,
        timeout: float,
        on_moved: Callable[[int], None],
    ) -> None:
        self._claim = claim
        self._publisher = publisher
        self._timeout = timeout
        self._on_moved = on_moved

    async def move(self, source: str, target: Queue, *, most: int = sys.maxsize) -> None:
        """Move all events of a queue that are there, or the first `most` and a few more.

        Cancelled, it lets those that are on their way arrive.

        Raises:
            ConnectionLost: The connection went away: some may be in both queues.
            TransportError: A copy was not taken: the others are left where they are.
        """
        channel = await self._claim.channel()
        received: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        moved = 0
        try:
            tag = await self._consume(channel, source, received)
            while moved < most and await self._is_more(source, received):
                # One alone first: a queue may refuse what comes in the first moments of its life,
                # and those behind must not get ahead.
                moved += await self._carry(channel, received, target, most=1 if not moved else None)
            await unless_lost(channel.connection, channel.basic_cancel(tag))
            await self._carry(channel, received, target)
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translated(error, f"to read {source!r}"):
                raise meaning from error
            raise
        finally:
            # The broker answers once it has seen every acknowledgement.
            if not channel.is_closed:
                await unless_lost(channel.connection, channel.close())

    async def _consume(
        self, channel: Channel, source: str, received: asyncio.Queue[DeliveredMessage]
    ) -> str:
        async def receive(delivered: DeliveredMessage) -> None:
            received.put_nowait(delivered)

        async with asyncio.timeout(self._timeout):
            await unless_lost(channel.connection, channel.basic_qos(prefetch_count=_AT_ONCE))
            consuming = channel.basic_consume(source, receive)
            return str((await unless_lost(channel.connection, consuming)).consumer_tag)

    async def _is_more(self, source: str, received: asyncio.Queue[DeliveredMessage]) -> bool:
        """Wait until something is received, or there is nothing to receive."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        while received.empty():
            await asyncio.sleep(_PERIOD)
            counted = await self._claim.count(source)
            if received.empty() and (counted is None or not counted.ready):
                return False
            if asyncio.get_running_loop().time() > deadline:
                raise ConnectionLost(f"RabbitMQ handed out nothing of {source!r}")
        return True

    async def _carry(
        self,
        channel: Channel,
        received: asyncio.Queue[DeliveredMessage],
        target: Queue,
        *,
        most: int | None = None,
    ) -> int:
        """Move what was received, or `most` of it, and return how many these were."""
        taken = [received.get_nowait() for _ in range(most or received.qsize())]
        carrying = asyncio.create_task(self._move(channel, taken, target))
        try:
            await asyncio.shield(carrying)
        except asyncio.CancelledError:
            await asyncio.wait({carrying}, timeout=self._timeout)
            raise
        return len(taken)

    async def _move(self, channel: Channel, taken: list[DeliveredMessage], target: Queue) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for one in taken:
                    group.create_task(self._copy(channel, one, target))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for one in taken:
            await channel.basic_ack(int(one.delivery_tag or 0), wait=False)
        self._on_moved(len(taken))

    async def _copy(self, channel: Channel, delivered: DeliveredMessage, target: Queue) -> None:
        frame_size = int(channel.connection.connection_tune.frame_max)
        if target.api_name:
            message = headers.message_of(delivered, target.api_name)
            attempt = {headers.ATTEMPT: headers.attempt_of(delivered)}
            properties = headers.copied(delivered, message, frame_size=frame_size, **attempt)
        else:
            properties = headers.carried_on(delivered, frame_size=frame_size)
        routing_key = (delivered.routing_key or "") if target.refilled_through else target.name
        await self._publisher.send_copy(
            target.refilled_through, routing_key, delivered.body, properties
        )
