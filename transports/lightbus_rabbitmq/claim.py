"""`Claim`: that one migration runs at a broker, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

import aiormq.abc
from aiormq.exceptions import ChannelLockedResource

from lightbus.exceptions import TransportRefused
from lightbus.transport import BrokerObject
from lightbus_rabbitmq import names, topology
from lightbus_rabbitmq.comparing import compared_with
from lightbus_rabbitmq.connection import Link
from lightbus_rabbitmq.errors import ConnectionLost
from lightbus_rabbitmq.objects import Binding, Channel, Exchange, Object, Queue
from lightbus_rabbitmq.topology import Count

T = TypeVar("T")

# How long another's claim is waited for, and how often it is tried, in seconds: RabbitMQ takes a
# moment to notice that a process was killed.
_PATIENCE = 3.0
_PERIOD = 0.1


class Claim:
    """What a migration asks of the broker, while it is the only one.

    The claim is a queue that is exclusive to a connection, and goes with it. So nothing is done
    over another connection, as the link would make when it has lost this one.
    """

    def __init__(self, link: Link, *, timeout: float) -> None:
        self._link = link
        self._timeout = timeout
        self._connection: aiormq.abc.AbstractConnection | None = None

    async def take(self) -> None:
        """Claim it, for as long as the connection lasts.

        Raises:
            TransportRefused: Another migration is under way.
            ConnectionLost: The connection went away.
        """
        for _ in range(round(_PATIENCE / _PERIOD)):
            async with self._unless_away():
                is_taken = await topology.on_own_channel(
                    self._link,
                    self._lock,
                    doing="to claim that no other migration runs",
                    timeout=self._timeout,
                )
            if is_taken:
                return
            await asyncio.sleep(_PERIOD)
        raise TransportRefused(
            "Another migration is under way at this RabbitMQ. Let it end, or stop it. If its "
            "machine is gone, RabbitMQ notices that within a minute."
        )

    async def _lock(self, channel: Channel) -> bool:
        try:
            await channel.queue_declare(names.MIGRATION_LOCK, exclusive=True)
        except ChannelLockedResource:
            return False
        self._connection = channel.connection
        return True

    async def channel(self) -> Channel:
        """Return a new channel.

        Raises:
            ConnectionLost: The connection, and with it the claim, is gone.
        """
        async with self._unless_away():
            channel = await self._link.channel(confirms=False)
        self._check(channel)
        return channel

    def _check(self, channel: Channel) -> None:
        if channel.connection is not self._connection:
            raise ConnectionLost("the connection was lost")

    async def compare(self, wanted: Exchange | Queue) -> BrokerObject:
        """Compare one object with what is wanted.

        The errors are those of `topology.on_own_channel`.
        """
        async with self._unless_away():
            return await compared_with(self._link, wanted, timeout=self._timeout)

    async def declare(self, wanted: Iterable[Object]) -> None:
        """Declare each of the objects.

        The errors are those of `topology.on_own_channel`.
        """
        for one in wanted:
            await self._run(one.declare, f"to declare {one.name!r}")

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Remove each of the bindings that exists.

        The errors are those of `topology.on_own_channel`.
        """
        for one in bindings:
            await self._run(one.remove, f"to unbind {one.name!r}")

    async def count(self, queue: str) -> Count | None:
        """Return what a queue tells about itself; None where there is none.

        The errors are those of `topology.on_own_channel`.
        """
        return await self._run(
            lambda channel: topology.counted(channel, queue), f"to look at queue {queue!r}"
        )

    async def delete(self, queue: str) -> int:
        """Delete a queue; return how many events went with it.

        The errors are those of `topology.on_own_channel`.
        """

        async def delete(channel: Channel) -> int:
            return int((await channel.queue_delete(queue)).message_count or 0)

        return await self._run(delete, f"to delete queue {queue!r}")

    async def _run(self, operation: Callable[[Channel], Awaitable[T]], doing: str) -> T:
        async def checked(channel: Channel) -> T:
            self._check(channel)
            return await operation(channel)

        async with self._unless_away():
            return await topology.on_own_channel(
                self._link, checked, doing=doing, timeout=self._timeout
            )

    @contextlib.asynccontextmanager
    async def _unless_away(self) -> AsyncGenerator[None]:
        # The link would wait for a broker that is away for as long as it takes.
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise ConnectionLost("the connection was lost") from error
