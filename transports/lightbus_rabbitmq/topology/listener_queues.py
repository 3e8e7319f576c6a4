"""Lists the queues of a service's listeners, and removes one."""

from __future__ import annotations

from lightbus.exceptions import (
    NotDeclared,
    QueueInUse,
    TransportUnavailable,
)
from lightbus.transport.records import ListenerQueue, QueueAddress
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost
from lightbus_rabbitmq.driver.operations import queue_counts
from lightbus_rabbitmq.topology.management_api import ManagementAPI
from lightbus_rabbitmq.topology.migration_lock import MigrationLock


async def all_of(
    connection: ReconnectingConnection,
    management_api: ManagementAPI,
    service_name: str,
    *,
    timeout: float,
) -> list[ListenerQueue]:
    """Return the queues of all listeners of a service, sorted by name.

    The management API lists the queues, which AMQP cannot. AMQP counts the events, because the
    management API reports their number with a delay.

    Raises:
        ConnectionLost: The connection was lost, or the broker did not answer in `timeout` seconds.
        TransportError: The management API failed.
    """
    found = []
    for queue in await management_api.queue_names(f"lightbus:{service_name}:"):
        listener_and_api = names.listener_and_api(queue, service_name)
        if listener_and_api is None:
            continue
        counts = await queue_counts(connection, queue, timeout=timeout)
        if counts is not None:
            listener_name, api_name = listener_and_api
            found.append(
                ListenerQueue(listener_name=listener_name, api_name=api_name, events=counts.ready)
            )
    return sorted(found, key=lambda queue: (queue.listener_name, queue.api_name))


async def remove(
    connection: ReconnectingConnection,
    address: QueueAddress,
    *,
    client_name: str,
    discard: bool,
    timeout: float,
) -> int:
    """Delete the queue of a listener; return how many events were deleted with it.

    Args:
        connection: A connection that nothing else uses. The caller closes it.
        address: The service, listener and API of the queue.
        client_name: The name of this client, which another client sees that wants to migrate.
        discard: Whether to delete the queue even if it holds events.
        timeout: How long the broker may take for one answer, in seconds.

    Raises:
        NotDeclared: The queue does not exist.
        QueueInUse: A client consumes from the queue or holds some of its events, or the queue
            holds events and `discard` is False.
        TransportRefused: A migration is running, or the broker's permissions do not allow it.
        TransportUnavailable: The connection was lost.
    """
    queue = names.listener_queue(address)
    await connection.open(timeout=timeout)
    lock = MigrationLock(connection, timeout=timeout)
    try:
        await lock.acquire(client_name)
        counts = await lock.queue_counts(queue)
        if counts is None:
            raise NotDeclared(f"RabbitMQ has no queue {queue!r}.")
        # RabbitMQ itself deletes a quorum queue even if it is in use or holds messages.
        if counts.users:
            raise QueueInUse(
                address.owner, f"{counts.users:,} workers use queue {queue!r}. Stop them first"
            )
        if counts.ready and not discard:
            raise QueueInUse(address.owner, events=counts.ready)
        return await lock.delete(queue)
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"It is unknown whether queue {queue!r} was deleted: {error}."
        ) from error
