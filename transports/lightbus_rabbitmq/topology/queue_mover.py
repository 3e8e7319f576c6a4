"""`QueueMover`: moves events between queues; each is kept until its copy is confirmed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from aiormq.abc import DeliveredMessage

from lightbus_rabbitmq import copies, headers, names
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.operations import AMQPChannel
from lightbus_rabbitmq.driver.waiting import run_while_connected
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology.declarations import Binding, Queue
from lightbus_rabbitmq.topology.migration_lock import MigrationLock

# How many events are in flight at once. If the migration is killed, RabbitMQ requeues all of them
# and increases their delivery counts.
_PREFETCH = 32

# How often a queue that delivers nothing is asked whether it is empty, in seconds
_CHECK_PERIOD = 0.1


class QueueMover:
    """Moves events within one broker. They keep their order and their attempts.

    Args:
        lock: The lock of the migration.
        publisher: Sends the copies.
        timeout: How long the broker may take for one answer, in seconds.
        on_moved: Called with the number of moved events.
    """

    def __init__(
        self,
        lock: MigrationLock,
        publisher: Publisher,
        *,
        timeout: float,
        on_moved: Callable[[int], None],
    ) -> None:
        self._lock = lock
        self._publisher = publisher
        self._timeout = timeout
        self._on_moved = on_moved
        self._binding = asyncio.Lock()
        self._bound: set[str] = set()

    async def move(self, source: str, target: Queue, *, at_least: int = sys.maxsize) -> None:
        """Move events until the queue is empty, or until `at_least` that many are moved.

        If the caller is cancelled, the events in flight are moved first.

        Raises:
            ConnectionLost: The connection was lost. Some events may be in both queues.
            TransportError: A copy was not confirmed. The other events stay in their queue.
        """
        stopping = asyncio.Event()
        moving = asyncio.create_task(
            self._move(source, target, at_least=at_least, stopping=stopping)
        )
        try:
            await asyncio.shield(moving)
        except asyncio.CancelledError:
            stopping.set()
            await asyncio.wait({moving}, timeout=self._timeout)
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            raise

    async def _move(
        self, source: str, target: Queue, *, at_least: int, stopping: asyncio.Event
    ) -> None:
        channel = await self._lock.channel()
        received: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        moved, is_last = 0, False
        try:
            consumer_tag = await self._consume(channel, source, received)
            while not is_last:
                batch = await self._next_batch(source, received)
                is_last = not batch or moved + len(batch) >= at_least or stopping.is_set()
                if is_last:
                    # Before the acknowledgements, after which the broker would deliver more.
                    await run_while_connected(
                        channel.connection, channel.basic_cancel(consumer_tag)
                    )
                    batch += [received.get_nowait() for _ in range(received.qsize())]
                # The first event alone: a queue may refuse messages in the first moments of its
                # life, and later events must not overtake a refused one.
                first = 0 if moved else 1
                await self._move_batch(channel, batch[:first], target)
                await self._move_batch(channel, batch[first:], target)
                moved += len(batch)
        except (Exception, asyncio.CancelledError) as error:
            if meaning := translate_error(error, f"to read {source!r}"):
                raise meaning from error
            raise
        finally:
            # The broker answers after it has handled every acknowledgement.
            if not channel.is_closed:
                await run_while_connected(channel.connection, channel.close())

    async def _consume(
        self, channel: AMQPChannel, source: str, received: asyncio.Queue[DeliveredMessage]
    ) -> str:
        async def receive(delivered: DeliveredMessage) -> None:
            received.put_nowait(delivered)

        async with asyncio.timeout(self._timeout):
            await run_while_connected(
                channel.connection, channel.basic_qos(prefetch_count=_PREFETCH)
            )
            consuming = channel.basic_consume(source, receive)
            return str((await run_while_connected(channel.connection, consuming)).consumer_tag)

    async def _next_batch(
        self, source: str, received: asyncio.Queue[DeliveredMessage]
    ) -> list[DeliveredMessage]:
        """Return a full prefetch of events, or the last events of the queue."""
        batch: list[DeliveredMessage] = []
        now = asyncio.get_running_loop().time
        deadline = now() + self._timeout
        while len(batch) < _PREFETCH:
            try:
                async with asyncio.timeout(_CHECK_PERIOD):
                    batch.append(await received.get())
            except TimeoutError:
                counts = await self._lock.queue_counts(source)
                if counts is None or not counts.ready:
                    break
                if now() > deadline:
                    raise ConnectionLost(
                        f"RabbitMQ delivers no events of queue {source!r}"
                    ) from None
        return batch

    async def _move_batch(
        self, channel: AMQPChannel, batch: list[DeliveredMessage], target: Queue
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for delivered in batch:
                    group.create_task(self._copy(channel, delivered, target))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for delivered in batch:
            await channel.basic_ack(int(delivered.delivery_tag or 0), wait=False)
        self._on_moved(len(batch))

    async def _copy(self, channel: AMQPChannel, delivered: DeliveredMessage, target: Queue) -> None:
        frame_size = int(channel.connection.connection_tune.frame_max)
        if target.api_name:
            message = headers.message_of(delivered, target.api_name)
            redeliveries = headers.redeliveries_of(delivered, channel.connection.server_properties)
            attempt = headers.attempt_of(delivered, target.api_name) + redeliveries
            added = {headers.ATTEMPT: attempt}
            properties = copies.copy_properties(delivered, message, frame_size=frame_size, **added)
        else:
            properties = copies.move_properties(delivered, frame_size=frame_size)
        routing_key = (delivered.routing_key or "") if target.refill_exchange else target.name
        if target.refill_exchange == names.DELAY_EXCHANGE:
            await self._bind_for_return(routing_key)
        await self._publisher.send_copy(
            target.refill_exchange, routing_key, delivered.body, properties
        )

    async def _bind_for_return(self, routing_key: str) -> None:
        """Bind the queue that a routing key names, so that it gets the delayed event back.

        It may be the queue of another service, which is not migrated yet.
        """
        queue = routing_key.partition(".")[2]
        async with self._binding:
            if queue not in self._bound and await self._lock.queue_counts(queue) is not None:
                await self._lock.declare([Binding(queue, names.RETURN_EXCHANGE, f"*.{queue}")])
            self._bound.add(queue)
