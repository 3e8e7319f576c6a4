"""`QueueMover`: takes the events of one queue to another, each kept until its copy is safe."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from aiormq.abc import DeliveredMessage

from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.driver.errors import ConnectionLost, translated
from lightbus_rabbitmq.driver.operations import AMQPChannel
from lightbus_rabbitmq.driver.waiting import unless_lost
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology.declarations import Binding, Queue
from lightbus_rabbitmq.topology.migration_lock import MigrationLock

# How many events are on their way at once. If the migration is killed, all of them are counted as
# returned to their queue.
_AT_ONCE = 32

# How often a queue that hands out nothing is asked whether it is empty, in seconds.
_PERIOD = 0.1


class QueueMover:
    """Moves events within one broker, in their order, with the numbers of their attempts.

    Args:
        claim: Of the migration.
        publisher: Sends the copies.
        timeout: How long the broker may take for one answer, in seconds.
        on_moved: Called with the number of moved events.
    """

    def __init__(
        self,
        claim: MigrationLock,
        publisher: Publisher,
        *,
        timeout: float,
        on_moved: Callable[[int], None],
    ) -> None:
        self._claim = claim
        self._publisher = publisher
        self._timeout = timeout
        self._on_moved = on_moved
        self._returning = asyncio.Lock()
        self._bound: set[str] = set()

    async def move(self, source: str, target: Queue, *, most: int = sys.maxsize) -> None:
        """Move all events of a queue that are there, or the first `most` and a few more.

        Cancelled, it lets those that it has taken arrive.

        Raises:
            ConnectionLost: The connection went away: some may be in both queues.
            TransportError: A copy was not taken: the others are left where they are.
        """
        stopping = asyncio.Event()
        moving = asyncio.create_task(self._move(source, target, most=most, stopping=stopping))
        try:
            await asyncio.shield(moving)
        except asyncio.CancelledError:
            stopping.set()
            await asyncio.wait({moving}, timeout=self._timeout)
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            raise

    async def _move(
        self, source: str, target: Queue, *, most: int, stopping: asyncio.Event
    ) -> None:
        channel = await self._claim.channel()
        received: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        moved, is_last = 0, False
        try:
            tag = await self._consume(channel, source, received)
            while not is_last:
                taken = await self._window(source, received)
                is_last = not taken or moved + len(taken) >= most or stopping.is_set()
                if is_last:
                    # Before the acknowledgements, for which the broker would hand out more.
                    await unless_lost(channel.connection, channel.basic_cancel(tag))
                    taken += [received.get_nowait() for _ in range(received.qsize())]
                # One alone first: a queue may refuse what comes in the first moments of its life,
                # and those behind must not get ahead.
                first = 0 if moved else 1
                await self._carry(channel, taken[:first], target)
                await self._carry(channel, taken[first:], target)
                moved += len(taken)
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translated(error, f"to read {source!r}"):
                raise meaning from error
            raise
        finally:
            # The broker answers once it has seen every acknowledgement.
            if not channel.is_closed:
                await unless_lost(channel.connection, channel.close())

    async def _consume(
        self, channel: AMQPChannel, source: str, received: asyncio.Queue[DeliveredMessage]
    ) -> str:
        async def receive(delivered: DeliveredMessage) -> None:
            received.put_nowait(delivered)

        async with asyncio.timeout(self._timeout):
            await unless_lost(channel.connection, channel.basic_qos(prefetch_count=_AT_ONCE))
            consuming = channel.basic_consume(source, receive)
            return str((await unless_lost(channel.connection, consuming)).consumer_tag)

    async def _window(
        self, source: str, received: asyncio.Queue[DeliveredMessage]
    ) -> list[DeliveredMessage]:
        """Return all that the broker hands out before it wants acknowledgements."""
        taken: list[DeliveredMessage] = []
        now = asyncio.get_running_loop().time
        deadline = now() + self._timeout
        while len(taken) < _AT_ONCE:
            try:
                async with asyncio.timeout(_PERIOD):
                    taken.append(await received.get())
            except TimeoutError:
                counted = await self._claim.count(source)
                if counted is None or not counted.ready:
                    break
                if now() > deadline:
                    raise ConnectionLost(f"RabbitMQ hands out nothing of {source!r}") from None
        return taken

    async def _carry(
        self, channel: AMQPChannel, taken: list[DeliveredMessage], target: Queue
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for one in taken:
                    group.create_task(self._copy(channel, one, target))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for one in taken:
            await channel.basic_ack(int(one.delivery_tag or 0), wait=False)
        self._on_moved(len(taken))

    async def _copy(self, channel: AMQPChannel, delivered: DeliveredMessage, target: Queue) -> None:
        frame_size = int(channel.connection.connection_tune.frame_max)
        if target.api_name:
            message = headers.message_of(delivered, target.api_name)
            returns = headers.returns_of(delivered, channel.connection.server_properties)
            attempt = headers.attempt_of(delivered, target.api_name) + returns
            added = {headers.ATTEMPT: attempt}
            properties = headers.copied(delivered, message, frame_size=frame_size, **added)
        else:
            properties = headers.carried_on(delivered, frame_size=frame_size)
        routing_key = (delivered.routing_key or "") if target.refilled_through else target.name
        if target.refilled_through == names.DELAY_EXCHANGE:
            await self._bind_for_return(routing_key)
        await self._publisher.send_copy(
            target.refilled_through, routing_key, delivered.body, properties
        )

    async def _bind_for_return(self, routing_key: str) -> None:
        """Bind a queue so that a delayed event returns to the queue that its routing key names.

        The queue may be one of another service, which is not migrated yet.
        """
        queue = routing_key.partition(".")[2]
        async with self._returning:
            if queue not in self._bound and await self._claim.count(queue) is not None:
                await self._claim.declare([Binding(queue, names.RETURN_EXCHANGE, f"*.{queue}")])
            self._bound.add(queue)
