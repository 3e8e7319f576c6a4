"""Changes the objects at the broker to match the desired topology, without losing events."""

from __future__ import annotations

import functools

import attrs

from lightbus.exceptions import TransportRefused, TransportUnavailable
from lightbus.transport.records import ObjectState
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.topology.declarations import DesiredTopology, Queue
from lightbus_rabbitmq.topology.declare import declare_api
from lightbus_rabbitmq.topology.migration_lock import MigrationLock
from lightbus_rabbitmq.topology.old_objects import OldObjects
from lightbus_rabbitmq.topology.queue_migration import (
    OnProgress,
    QueueMigration,
    wait_until_unused,
)


async def migrate(
    connection: ReconnectingConnection,
    desired: DesiredTopology,
    *,
    client_name: str,
    timeout: float,
    on_progress: OnProgress,
) -> None:
    """Create missing objects, and recreate queues that have other settings.

    Args:
        connection: A connection that nothing else uses. The caller closes it.
        desired: The desired topology.
        client_name: The name of this client, which another client sees that wants to migrate.
        timeout: How long the broker may take for one answer, in seconds.
        on_progress: Called after each step.

    Raises:
        TransportRefused: The migration cannot start; the message names the reason.
        TransportUnavailable: The connection was lost. The next migration continues.
        TransportError: The broker failed.
    """
    await connection.open(timeout=timeout)
    lock = MigrationLock(connection, timeout=timeout)
    publisher = Publisher(
        connection,
        declare_api=functools.partial(declare_api, connection, timeout=timeout),
        operation_timeout=timeout,
    )
    try:
        await lock.acquire(client_name)
        await _migrate_under_lock(
            lock, publisher, desired, timeout=timeout, on_progress=on_progress
        )
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"The migration was interrupted: {error}. No event is lost; run it again to continue."
        ) from error
    finally:
        await publisher.close()


async def _migrate_under_lock(
    lock: MigrationLock,
    publisher: Publisher,
    desired: DesiredTopology,
    *,
    timeout: float,
    on_progress: OnProgress,
) -> None:
    different = await _different_queues(lock, desired)
    old = OldObjects(lock, publisher, desired, timeout=timeout, on_progress=on_progress)
    is_old_in_use = await old.find()
    await _wait_until_all_unused(
        lock, desired, different, is_any_recreated=bool(different) or is_old_in_use
    )
    await lock.declare(desired.exchanges)
    # A recreated queue stays bound to the old return exchange, which may still get events.
    with_old_bindings = attrs.evolve(desired, bindings=[*desired.bindings, *old.return_bindings])
    for queue in desired.queues:
        if queue in different or await lock.queue_counts(queue.temporary.name) is not None:
            queue_migration = QueueMigration(
                lock,
                publisher,
                queue,
                with_old_bindings,
                timeout=timeout,
                on_progress=on_progress,
            )
            await queue_migration.run(is_different=queue in different)
    await lock.declare(desired.queues)
    await lock.declare(desired.bindings)
    await lock.unbind(desired.stale_bindings)
    await old.replace()


async def _different_queues(lock: MigrationLock, desired: DesiredTopology) -> list[Queue]:
    """Return the queues that must be recreated."""
    for exchange in desired.exchanges:
        compared = await lock.compare(exchange)
        if compared.state is ObjectState.DIFFERENT:
            raise TransportRefused(
                f"Exchange {exchange.name!r} has other settings. {compared.note}"
            )
    compared_queues = [(queue, await lock.compare(queue)) for queue in desired.queues]
    return [queue for queue, compared in compared_queues if compared.state is ObjectState.DIFFERENT]


async def _wait_until_all_unused(
    lock: MigrationLock,
    desired: DesiredTopology,
    different: list[Queue],
    *,
    is_any_recreated: bool,
) -> None:
    """Wait until nothing uses the queues, so that no step is done if one of them is in use."""
    for queue in desired.queues:
        # A worker uses more than the queue of its listener: it sends to the delay queues and to
        # the dead letter queue. So all queues of listeners are checked if any queue is recreated.
        if queue in different or (is_any_recreated and queue.api_name):
            await wait_until_unused(lock, queue.name)
