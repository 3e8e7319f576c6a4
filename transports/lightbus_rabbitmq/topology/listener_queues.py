"""Lists the queues of a service's listeners, and removes one."""

from __future__ import annotations

from lightbus.exceptions import (
    ListenerInUse,
    ListenerQueueNotEmpty,
    NotDeclared,
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
    link: ReconnectingConnection, management: ManagementAPI, service_name: str, *, timeout: float
) -> list[ListenerQueue]:
    """Return the queues of all listeners of a service, sorted by name.

    AMQP does not list queues, and the management API counts events late. So each does one of these.

    Raises:
        ConnectionLost: The connection went away, or the broker did not answer in `timeout` seconds.
        TransportError: The management API failed.
    """
    found = []
    for queue in await management.queue_names(f"lightbus:{service_name}:"):
        named = names.listener_and_api(queue, service_name)
        counted = await queue_counts(link, queue, timeout=timeout) if named else None
        if named is not None and counted is not None:
            listener_name, api_name = named
            found.append(
                ListenerQueue(listener_name=listener_name, api_name=api_name, events=counted.ready)
            )
    return sorted(found, key=lambda one: (one.listener_name, one.api_name))


async def remove(
    link: ReconnectingConnection,
    address: QueueAddress,
    *,
    client_name: str,
    discard: bool,
    timeout: float,
) -> int:
    """Delete the queue of a listener; return how many events were lost with it.

    Args:
        link: A connection that nothing else uses; the caller closes it.
        address: The queue.
        client_name: The name of this client, for others that migrate meanwhile.
        discard: Whether the events in the queue may be lost.
        timeout: How long the broker may take for one answer, in seconds.

    Raises:
        NotDeclared: There is no such queue.
        ListenerInUse: A client consumes from it, or holds some of its events.
        ListenerQueueNotEmpty: Events are in it, and `discard` is not given.
        TransportRefused: A migration is running, or the broker's permissions do not allow it.
        TransportUnavailable: The connection was lost.
    """
    queue = names.listener_queue(address)
    await link.open(timeout=timeout)
    claim = MigrationLock(link, timeout=timeout)
    try:
        await claim.take(client_name)
        counted = await claim.count(queue)
        if counted is None:
            raise NotDeclared(f"RabbitMQ has no queue {queue!r}.")
        # RabbitMQ deletes a quorum queue whether it is in use and has messages or not.
        if counted.users:
            raise ListenerInUse(
                address.listener_name,
                address.api_name,
                f"{counted.users:,} workers use queue {queue!r}. Stop them first",
            )
        if counted.ready and not discard:
            raise ListenerQueueNotEmpty(address.listener_name, address.api_name, counted.ready)
        return await claim.delete(queue)
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"Whether queue {queue!r} was deleted is unknown: {error}."
        ) from error
