"""`MigrationLock`: that one migration runs at a broker, and no other."""

from __future__ import annotations

from collections.abc import Iterable

from aiormq.exceptions import ChannelPreconditionFailed

from lightbus.exceptions import TransportRefused
from lightbus.transport.records import BrokerObject, ObjectState
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import (
    AMQPChannel,
    QueueCounts,
    queue_counts_on,
)
from lightbus_rabbitmq.topology.declarations import Binding, Declaration, Exchange, Queue
from lightbus_rabbitmq.topology.diff import compared_with
from lightbus_rabbitmq.topology.lock import Lock, LockHeld

# How long to wait for another migration, in seconds.
_PATIENCE = 3.0


class MigrationLock:
    """The operations of a migration, while no other one runs.

    Every operation goes through the lock, and so over the connection that has it.
    """

    def __init__(self, link: ReconnectingConnection, *, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._lock = Lock(link, names.MIGRATION_LOCK, timeout=timeout)

    async def take(self, client_name: str) -> None:
        """Take the lock, for as long as the connection lasts.

        Raises:
            TransportRefused: Another migration is running.
            ConnectionLost: The connection went away.
        """
        try:
            await self._lock.take(client_name, patience=_PATIENCE)
        except LockHeld as error:
            raise TransportRefused(
                f"Another migration is running at this RabbitMQ: {error.holder}. Let it end, or "
                "stop it. If its machine is gone, RabbitMQ notices that within a minute."
            ) from error

    async def channel(self) -> AMQPChannel:
        """Return a new channel.

        Raises:
            ConnectionLost: The connection, and with it the claim, is gone.
        """
        return await self._lock.channel()

    async def compare(self, wanted: Exchange | Queue) -> BrokerObject:
        """Compare one object with what is wanted.

        The errors are those of `run_on_new_channel`.
        """
        async with self._lock.bounded():
            return await compared_with(self._link, wanted, timeout=self._timeout)

    async def declare(self, wanted: Iterable[Declaration]) -> None:
        """Declare each of the objects.

        The errors are those of `run_on_new_channel`.
        """
        for one in wanted:
            await self._lock.run(one.declare, f"to declare {one.name!r}")

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove each of the bindings that exists.

        The errors are those of `run_on_new_channel`.
        """
        for one in bindings:
            await self._lock.run(one.remove, f"to unbind {one.name!r}")

    async def count(self, queue: str) -> QueueCounts | None:
        """Return what a queue tells about itself; None where there is none.

        The errors are those of `run_on_new_channel`.
        """
        return await self._lock.run(
            lambda channel: queue_counts_on(channel, queue), f"to look at queue {queue!r}"
        )

    async def delete(self, queue: str) -> int:
        """Delete a queue; return how many events went with it.

        The errors are those of `run_on_new_channel`.
        """

        async def delete(channel: AMQPChannel) -> int:
            return int((await channel.queue_delete(queue)).message_count or 0)

        return await self._lock.run(delete, f"to delete queue {queue!r}")

    async def delete_unused(self, exchange: Exchange) -> bool:
        """Delete an exchange unless something is bound to it; return whether it is gone.

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
        """Return whether an exchange exists with these settings.

        The errors are those of `run_on_new_channel`.
        """
        return (await self.compare(exchange)).state is ObjectState.OK
