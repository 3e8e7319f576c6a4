"""`OldObjects`: replaces the objects that an earlier version declared under other names."""

from __future__ import annotations

import asyncio

from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology import old_names, queue_migration
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from lightbus_rabbitmq.topology.old_names import RenamedQueue
from lightbus_rabbitmq.topology.queue_migration import OnProgress, QueueMigration


class OldObjects:
    """The shared exchanges and queues under their old names.

    Other services may still use them, so each is deleted only when nothing is bound to it. They are
    deleted in the order in which events pass through them, so that no event is stranded.

    Args:
        lock: The lock of the migration.
        publisher: Sends the copies of events.
        desired: The topology that replaces the old objects.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Called after each step.

    Attributes:
        return_bindings: The bindings from the old return exchange to the listeners' queues.
    """

    def __init__(
        self,
        lock: MigrationLock,
        publisher: Publisher,
        desired: DesiredTopology,
        *,
        timeout: float,
        on_progress: OnProgress,
    ) -> None:
        self._lock = lock
        self._publisher = publisher
        self._desired = desired
        self._timeout = timeout
        self._on_progress = on_progress
        self.return_bindings: list[Binding] = []
        self._exist = False
        self._delay_queues: list[RenamedQueue] = []

    async def find(self) -> bool:
        """Find the old objects; return whether workers of the service may use them.

        The errors are those of `migrate`.
        """
        self._exist = await self._lock.exists(old_names.UNROUTED)
        if self._exist:
            self._delay_queues = await self._existing(old_names.delay_queues(self._desired))
            if await self._lock.exists(old_names.RETURN):
                self.return_bindings = old_names.return_bindings(self._desired)
        return bool(self._delay_queues)

    async def replace(self) -> None:
        """Move the events of the old queues, and delete the old objects that nothing uses.

        The new objects must have been declared. The errors are those of `migrate`.
        """
        if not self._exist:
            return
        unrouted = await self._existing(old_names.unrouted_queues(self._desired))
        if self._delay_queues or unrouted:
            await asyncio.sleep(queue_migration.NEW_QUEUE_DELAY)
        for old in self._delay_queues:
            await self._migration_of(old).move_and_delete(old)
        for old in unrouted:
            await self._migration_of(old).move_events(old)
        for exchange in old_names.EXCHANGES:
            if exchange == old_names.RETURN:
                await self._lock.unbind(self.return_bindings)
            if exchange == old_names.UNROUTED:
                for old in unrouted:
                    await self._migration_of(old).move_and_delete(old)
            if not await self._lock.delete_unused(exchange):
                break
        # The exchange of an API can have the name of one that was deleted.
        await self._lock.declare(self._desired.exchanges)

    async def _existing(self, queues: list[RenamedQueue]) -> list[RenamedQueue]:
        return [
            queue for queue in queues if await self._lock.queue_counts(queue.old_name) is not None
        ]

    def _migration_of(self, old: RenamedQueue) -> QueueMigration:
        return QueueMigration(
            self._lock,
            self._publisher,
            old.queue,
            self._desired,
            timeout=self._timeout,
            on_progress=self._on_progress,
        )
