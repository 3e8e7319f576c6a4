"""`MigrationLock`: at most one migration runs at a broker at a time."""

from __future__ import annotations

from collections.abc import Iterable

from aiormq.exceptions import ChannelPreconditionFailed

from lightbus.exceptions import TransportRefused
from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import AMQPChannel, QueueCounts, queue_counts_on
from lightbus_rabbitmq.topology.declarations import Binding, Declaration, Exchange, Queue
from lightbus_rabbitmq.topology.diff import compare_object
from lightbus_rabbitmq.topology.lock import BrokerLock, LockHeld

# How long to wait for another migration, in seconds
_ACQUIRE_TIMEOUT = 3.0


class MigrationLock:
    """The operations of a migration, each of which fails if the lock was lost.

    Args:
        connection: A connection that nothing else uses.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(self, connection: ReconnectingConnection, *, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._lock = BrokerLock(connection, names.MIGRATION_LOCK, timeout=timeout)

    async def acquire(self, client_name: str) -> None:
        """Acquire the lock. It is released when the connection ends.

        Raises:
            TransportRefused: Another migration is running.
            ConnectionLost: The connection was lost.
        """
        try:
            await self._lock.acquire(client_name, timeout=_ACQUIRE_TIMEOUT)
        except LockHeld as error:
            raise TransportRefused(
                f"Another migration is running at this RabbitMQ: {error.holder}. Wait for it to "
                "end, or stop it. If its machine is gone, RabbitMQ notices that within a minute."
            ) from error

    async def channel(self) -> AMQPChannel:
        """Return a new channel.

        Raises:
            ConnectionLost: The connection was lost, and the lock with it.
        """
        return await self._lock.channel()

    async def compare(self, desired: Exchange | Queue) -> BrokerObject:
        """Compare an object at the broker with its desired settings.

        The errors are those of `run_on_new_channel`.
        """
        async with self._lock.limit_time():
            return await compare_object(self._connection, desired, timeout=self._timeout)

    async def declare(self, declarations: Iterable[Declaration]) -> None:
        """Declare objects.

        The errors are those of `run_on_new_channel`.
        """
        for declaration in declarations:
            await self._lock.run(declaration.declare, f"to declare {declaration.name!r}")

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove those of the bindings that exist.

        The errors are those of `run_on_new_channel`.
        """
        for binding in bindings:
            await self._lock.run(binding.remove, f"to unbind {binding.name!r}")

    async def queue_counts(self, queue: str) -> QueueCounts | None:
        """Return the numbers of a queue; None if the queue does not exist.

        The errors are those of `run_on_new_channel`.
        """
        return await self._lock.run(
            lambda channel: queue_counts_on(channel, queue), f"to look at queue {queue!r}"
        )

    async def delete(self, queue: str) -> int:
        """Delete a queue; return how many events were deleted with it.

        The errors are those of `run_on_new_channel`.
        """

        async def delete(channel: AMQPChannel) -> int:
            return int((await channel.queue_delete(queue)).message_count or 0)

        return await self._lock.run(delete, f"to delete queue {queue!r}")

    async def delete_unused(self, exchange: Exchange) -> bool:
        """Delete an exchange unless something is bound to it; return whether it was deleted.

        The errors are those of `run_on_new_channel`.
        """

        async def delete(channel: AMQPChannel) -> bool:
            try:
                await channel.exchange_delete(exchange.name, if_unused=True)
            except ChannelPreconditionFailed:
                return False
            return True

        return await self._lock.run(delete, f"to delete exchange {exchange.name!r}")

    async def exists(self, exchange: Exchange) -> bool:
        """Return whether an exchange with these settings exists.

        The errors are those of `run_on_new_channel`.
        """
        return (await self.compare(exchange)).state is ObjectState.OK
