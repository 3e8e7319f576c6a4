"""Recreates one queue with other settings, without losing events.

The settings of a queue cannot be changed. So a migration moves the events to a temporary queue,
deletes and declares the queue, and moves the events back. The objects at the broker show which step
is next. So a migration may be killed after any step, and the next one continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from lightbus.exceptions import TransportError, TransportRefused
from lightbus.transport.records import MigrationProgress
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology.declarations import Binding, DesiredTopology, Queue
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from lightbus_rabbitmq.topology.old_names import RenamedQueue
from lightbus_rabbitmq.topology.queue_mover import QueueMover

# RabbitMQ confirms a new quorum queue before all of it is on disk. A node that is killed within
# about a second can lose the queue, and the events that were moved to it. In seconds.
NEW_QUEUE_DELAY = 3.0

# How many times in a row a queue must be empty and unused before it is deleted. Messages that the
# broker was routing when the queue was unbound arrive in the meantime.
EMPTY_CHECKS = 10

# The time between two checks of a queue, in seconds
_CHECK_PERIOD = 0.1

# How long a queue may stay in use before the migration fails, in seconds. RabbitMQ takes a moment
# to notice that a worker was killed.
_UNUSED_TIMEOUT = 3.0

OnProgress = Callable[[MigrationProgress], None]


async def wait_until_unused(lock: MigrationLock, queue: str) -> None:
    """Wait until no client uses a queue.

    Raises:
        TransportRefused: The queue is still in use after some seconds.
    """
    for _ in range(round(_UNUSED_TIMEOUT / _CHECK_PERIOD)):
        counts = await lock.queue_counts(queue)
        if counts is None or not counts.users:
            return
        await asyncio.sleep(_CHECK_PERIOD)
    raise TransportRefused(
        f"Queue {queue!r} is in use. Stop the workers of its service, and other clients that read "
        "from it, and run the migration again."
    )


class QueueMigration:
    """The migration of one queue.

    Args:
        lock: The lock of the migration.
        publisher: Sends the copies of events.
        queue: The queue with the desired settings.
        desired: The topology, with the bindings of the queue.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Called after each step.
    """

    def __init__(
        self,
        lock: MigrationLock,
        publisher: Publisher,
        queue: Queue,
        desired: DesiredTopology,
        *,
        timeout: float,
        on_progress: OnProgress,
    ) -> None:
        self._lock = lock
        self._queue = queue
        self._temporary = queue.temporary
        self._bindings = desired.bindings_of(queue)
        self._stale_bindings = desired.stale_bindings_of(queue)
        self._mover = QueueMover(lock, publisher, timeout=timeout, on_moved=self._on_moved)
        self._on_progress = on_progress
        self._moved = 0
        self._left = 0

    async def run(self, *, is_different: bool) -> None:
        """Recreate the queue.

        The errors are those of `migrate`.

        Args:
            is_different: Whether the queue has other settings. If it does not, an interrupted
                migration has done the first half of the steps.
        """
        bindings = self._bindings
        temporary_bindings = [
            attrs.evolve(binding, queue=self._temporary.name) for binding in bindings
        ]
        if is_different:
            await self._create(self._temporary)
            await self._replace(
                self._queue.name,
                [*bindings, *self._stale_bindings],
                self._temporary,
                temporary_bindings,
            )
        await self._create(self._queue)
        await self._replace(self._temporary.name, temporary_bindings, self._queue, bindings)
        self._report(is_done=True)

    async def move_and_delete(self, old: RenamedQueue) -> None:
        """Move the events of an old queue to this queue, and delete the old queue.

        The errors are those of `migrate`.
        """
        await self._replace(old.old_name, [old.old_binding], self._queue, [])
        self._report(is_done=True)

    async def move_events(self, old: RenamedQueue) -> None:
        """Move the events of an old queue to this queue, and keep the old queue.

        The errors are those of `migrate`.
        """
        await self._mover.move(old.old_name, self._queue)
        self._report(is_done=True)

    async def _create(self, queue: Queue) -> None:
        await self._lock.declare([queue])
        self._report()
        await asyncio.sleep(NEW_QUEUE_DELAY)

    async def _replace(
        self, old: str, old_bindings: list[Binding], new: Queue, new_bindings: list[Binding]
    ) -> None:
        """Move the events and the bindings of `old` to `new`, and delete `old`."""
        counts = await self._lock.queue_counts(old)
        self._left = counts.ready if counts else 0
        self._report()
        if not new.refill_exchange:
            # Before the new queue is bound, so that the events stay ahead of newly fired ones.
            await self._mover.move(old, new, at_least=self._left)
        # For a moment, both queues get the events that are fired. None is lost in between.
        await self._lock.declare(new_bindings)
        await self._lock.unbind(old_bindings)
        await self._empty(old, new)
        lost = await self._lock.delete(old)
        if lost:
            raise TransportError(
                f"{lost} events were sent directly to queue {old!r} while it was being deleted, "
                "and are lost. The migration is not complete: run it again."
            )

    async def _empty(self, old: str, new: Queue) -> None:
        checks = 0
        while checks < EMPTY_CHECKS:
            await asyncio.sleep(_CHECK_PERIOD)
            await wait_until_unused(self._lock, old)
            counts = await self._lock.queue_counts(old)
            if counts and counts.ready:
                await self._mover.move(old, new)
                checks = 0
            else:
                checks += 1

    def _on_moved(self, count: int) -> None:
        self._moved += count
        self._left = max(self._left - count, 0)
        self._report()

    def _report(self, *, is_done: bool = False) -> None:
        self._on_progress(
            MigrationProgress(
                name=self._queue.name, moved=self._moved, left=self._left, is_done=is_done
            )
        )
