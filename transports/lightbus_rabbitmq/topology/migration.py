"""Creates missing objects and recreates those with other settings, without losing events.

A queue's settings cannot be changed. So a queue is emptied into a temporary one, deleted, declared
anew, and filled again. Which of these steps is next is seen from what exists at the broker. So a
migration may be killed after any of them: the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from lightbus.exceptions import TransportError, TransportRefused, TransportUnavailable
from lightbus.transport.records import MigrationProgress, ObjectState
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology import old_names
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Queue
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from lightbus_rabbitmq.topology.old_names import RenamedQueue
from lightbus_rabbitmq.topology.queue_mover import QueueMover

# How often a queue is looked at, in seconds, ...
_PERIOD = 0.1

# ... and how often in turn it is to be seen empty and unused before it is deleted: what was on its
# way within the broker when the queue was unbound arrives meanwhile.
_LOOKS = 10

# How long a queue may be used before that is taken for a worker that runs, in seconds: RabbitMQ
# takes a moment to notice that one was killed.
_PATIENCE = 3.0

# RabbitMQ confirms a new quorum queue before all that it needs of it is on disk. One that is killed
# within a second or so of that can lose the queue, and what was moved into it. In seconds.
_SAVED_AFTER = 3.0

OnProgress = Callable[[MigrationProgress], None]


async def migrate(
    link: ReconnectingConnection,
    wanted: DesiredTopology,
    *,
    client_name: str,
    timeout: float,
    on_progress: OnProgress,
) -> None:
    """Change the objects at the broker to match the wanted topology.

    Args:
        link: A connection that nothing else uses; the caller closes it.
        wanted: The wanted topology.
        client_name: The name of this client, for others that want to migrate meanwhile.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Told how far it is.

    Raises:
        TransportRefused: Something is in the way, which the message names.
        TransportUnavailable: The connection was lost; the next migration goes on.
        TransportError: The broker failed.
    """
    await link.open(timeout=timeout)
    claim = MigrationLock(link, timeout=timeout)
    publisher = Publisher(link, operation_timeout=timeout)
    try:
        await claim.take(client_name)
        different = await _different(claim, wanted)
        old = OldObjects(claim, publisher, wanted, timeout=timeout, on_progress=on_progress)
        is_old_in_use = await old.find()
        # All of them first, so that nothing is begun where something is in the way. A worker uses
        # more than its own queue: what it gives up, it sends to the dead letters by their name.
        for queue in wanted.queues:
            if queue in different or ((different or is_old_in_use) and queue.api_name):
                await _wait_until_unused(claim, queue.name)
        await claim.declare(wanted.exchanges)
        # A queue that is made anew stays bound to the old exchange through which events still come.
        kept = attrs.evolve(wanted, bindings=[*wanted.bindings, *old.return_bindings])
        for queue in wanted.queues:
            if queue in different or await claim.count(queue.temporary.name) is not None:
                moving = QueueMigration(
                    claim, publisher, queue, kept, timeout=timeout, on_progress=on_progress
                )
                await moving.run(is_different=queue in different)
        await claim.declare(wanted.queues)
        await claim.declare(wanted.bindings)
        await claim.unbind(wanted.unwanted)
        await old.replace()
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"The migration was broken off: {error}. Nothing is lost; run it again to go on."
        ) from error
    finally:
        await publisher.close()


async def _different(claim: MigrationLock, wanted: DesiredTopology) -> list[Queue]:
    """Return the queues that are to be made anew."""
    for exchange in wanted.exchanges:
        compared = await claim.compare(exchange)
        if compared.state is ObjectState.DIFFERENT:
            raise TransportRefused(
                f"Exchange {exchange.name!r} has other settings. {compared.note}"
            )
    compared_queues = [(queue, await claim.compare(queue)) for queue in wanted.queues]
    return [queue for queue, compared in compared_queues if compared.state is ObjectState.DIFFERENT]


async def _wait_until_unused(claim: MigrationLock, queue: str) -> None:
    for _ in range(round(_PATIENCE / _PERIOD)):
        counted = await claim.count(queue)
        if counted is None or not counted.users:
            return
        await asyncio.sleep(_PERIOD)
    raise TransportRefused(
        f"Queue {queue!r} is in use. Stop the workers of its service, and whoever reads its "
        "events, and run it again."
    )


class QueueMigration:
    """Makes one queue anew, or goes on with it.

    Args:
        claim: Of the migration.
        publisher: Sends the copies of events.
        queue: As it is wanted.
        wanted: Has its bindings.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Told how far it is.
    """

    def __init__(
        self,
        claim: MigrationLock,
        publisher: Publisher,
        queue: Queue,
        wanted: DesiredTopology,
        *,
        timeout: float,
        on_progress: OnProgress,
    ) -> None:
        self._claim = claim
        self._queue = queue
        self._temporary = queue.temporary
        self._bindings = wanted.bindings_of(queue)
        self._unwanted = wanted.unwanted_of(queue)
        self._refill = QueueMover(claim, publisher, timeout=timeout, on_moved=self._on_moved)
        self._on_progress = on_progress
        self._moved = 0
        self._to_move = 0

    async def run(self, *, is_different: bool) -> None:
        """Do all the steps; the first half is done where the queue `is_different` no more.

        The errors are those of `migrate`.
        """
        here = self._bindings
        there = [attrs.evolve(binding, queue=self._temporary.name) for binding in here]
        if is_different:
            await self._make(self._temporary)
            await self._replace(self._queue.name, [*here, *self._unwanted], self._temporary, there)
        await self._make(self._queue)
        await self._replace(self._temporary.name, there, self._queue, here)
        self._tell(is_done=True)

    async def take_over(self, old: RenamedQueue) -> None:
        """Move the events of an old queue here, and delete the old queue.

        The errors are those of `migrate`.
        """
        await self._replace(old.old_name, [old.old_binding], self._queue, [])
        self._tell(is_done=True)

    async def take_events(self, old: RenamedQueue) -> None:
        """Move the events of an old queue here, and keep the old queue.

        The errors are those of `migrate`.
        """
        await self._refill.move(old.old_name, self._queue)
        self._tell(is_done=True)

    async def _make(self, queue: Queue) -> None:
        await self._claim.declare([queue])
        self._tell()
        await asyncio.sleep(_SAVED_AFTER)

    async def _replace(
        self, old: str, old_bindings: list[Binding], new: Queue, new_bindings: list[Binding]
    ) -> None:
        """Have `new` hold, and get, what `old` does, and delete `old`."""
        counted = await self._claim.count(old)
        self._to_move = counted.ready if counted else 0
        self._tell()
        if not new.refilled_through:
            # Those that wait, before new ones come in behind them.
            await self._refill.move(old, new, most=self._to_move)
        # For a moment both get what is sent: never neither.
        await self._claim.declare(new_bindings)
        await self._claim.unbind(old_bindings)
        await self._empty(old, new)
        lost = await self._claim.delete(old)
        if lost:
            raise TransportError(
                f"{lost} events were put into queue {old!r} past its exchange in the moment in "
                "which it was deleted, and are lost. The migration is not done: run it again."
            )

    async def _empty(self, old: str, new: Queue) -> None:
        looks = 0
        while looks < _LOOKS:
            await asyncio.sleep(_PERIOD)
            await _wait_until_unused(self._claim, old)
            counted = await self._claim.count(old)
            if counted and counted.ready:
                await self._refill.move(old, new)
                looks = 0
            else:
                looks += 1

    def _on_moved(self, count: int) -> None:
        self._moved += count
        self._to_move = max(self._to_move - count, 0)
        self._tell()

    def _tell(self, *, is_done: bool = False) -> None:
        self._on_progress(
            MigrationProgress(
                name=self._queue.name, moved=self._moved, left=self._to_move, is_done=is_done
            )
        )


class OldObjects:
    """The bus's own objects under their old names, and how the new ones take their place.

    Other services may still use them, so each is deleted only when nothing is bound to it any more.
    They are deleted in the order in which events pass through them, so that no event is stranded.

    Args:
        claim: Of the migration.
        publisher: Sends the copies of events.
        wanted: What takes their place.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Called with how far it is.

    Attributes:
        return_bindings: What may lead from them to the listeners' queues.
    """

    def __init__(
        self,
        claim: MigrationLock,
        publisher: Publisher,
        wanted: DesiredTopology,
        *,
        timeout: float,
        on_progress: OnProgress,
    ) -> None:
        self._claim = claim
        self._publisher = publisher
        self._wanted = wanted
        self._timeout = timeout
        self._on_progress = on_progress
        self.return_bindings: list[Binding] = []
        self._exist = False
        self._delays: list[RenamedQueue] = []

    async def find(self) -> bool:
        """Look for them; return whether workers of the service may use them.

        The errors are those of `migrate`.
        """
        self._exist = await self._claim.exists(old_names.UNROUTED)
        if self._exist:
            self._delays = await self._existing(old_names.delay_queues(self._wanted))
            if await self._claim.exists(old_names.RETURN):
                self.return_bindings = old_names.return_bindings(self._wanted)
        return bool(self._delays)

    async def replace(self) -> None:
        """Move what they hold, and delete those that nothing uses; the new ones are declared.

        The errors are those of `migrate`.
        """
        if not self._exist:
            return
        unrouted = await self._existing(old_names.unrouted_queues(self._wanted))
        if self._delays or unrouted:
            await asyncio.sleep(_SAVED_AFTER)
        for old in self._delays:
            await self._migration_to(old).take_over(old)
        for old in unrouted:
            await self._migration_to(old).take_events(old)
        for exchange in old_names.EXCHANGES:
            if exchange == old_names.RETURN:
                await self._claim.unbind(self.return_bindings)
            if exchange == old_names.UNROUTED:
                for old in unrouted:
                    await self._migration_to(old).take_over(old)
            if not await self._claim.delete_unused(exchange):
                break
        # One of an API may have had the name of one that was deleted.
        await self._claim.declare(self._wanted.exchanges)

    async def _existing(self, queues: list[RenamedQueue]) -> list[RenamedQueue]:
        return [one for one in queues if await self._claim.count(one.old_name) is not None]

    def _migration_to(self, old: RenamedQueue) -> QueueMigration:
        return QueueMigration(
            self._claim,
            self._publisher,
            old.queue,
            self._wanted,
            timeout=self._timeout,
            on_progress=self._on_progress,
        )
