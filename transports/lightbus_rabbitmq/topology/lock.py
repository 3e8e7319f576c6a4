"""`Lock`: at most one connection to a broker has it, and the others can see whose it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import aiormq.abc
from aiormq.exceptions import (
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, reason
from lightbus_rabbitmq.driver.operations import AMQPChannel, run_on_new_channel

T = TypeVar("T")

# How often a lock that another connection has is tried again, in seconds.
_PERIOD = 0.1

# An alternate exchange that does not exist. Its name must begin with "lightbus:", which is what
# a service may usually write to.
_HOLDER = "lightbus::holder:"
_ALTERNATE = "alternate-exchange"
# RabbitMQ cuts an error's text after 255 bytes.
_HOLDER_IN_ERROR = re.compile(rf"current is .*{_HOLDER}(?P<holder>[^']*)")
_MOST_HOLDER_BYTES = 90


class LockHeld(Exception):
    """Another connection has the lock.

    Attributes:
        holder: Who that is.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lock is held by {holder}")
        self.holder = holder


class Lock:
    """A lock at the broker that ends with its connection.

    The lock is an exclusive queue. RabbitMQ shows nothing of an exclusive queue to other
    connections. So an exchange of the same name holds the name of the holder, as an argument that
    RabbitMQ tells to whoever declares the exchange without it.

    Args:
        link: A connection that nothing else uses. Every operation under the lock goes through the
            lock, because the link would silently make a new connection, which has no lock.
        name: The name of the queue and of the exchange.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(self, link: ReconnectingConnection, name: str, *, timeout: float) -> None:
        self._link = link
        self._name = name
        self._timeout = timeout
        self._connection: aiormq.abc.AbstractConnection | None = None

    async def take(self, client_name: str, *, patience: float) -> None:
        """Take the lock; wait up to `patience` seconds while another connection has it.

        Args:
            client_name: The name of this client, which others see.
            patience: In seconds. RabbitMQ takes a moment to notice that a process was killed.

        Raises:
            LockHeld: Another connection still has it.
            ConnectionLost: The connection went away.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + patience
        while not await self._on_own_channel(self._declare, "to take a lock"):
            if now() >= deadline:
                raise LockHeld(await self._on_own_channel(self._holder, "who holds a lock"))
            await asyncio.sleep(_PERIOD)
        await self._on_own_channel(
            lambda channel: self._name_holder(channel, client_name), "to name the holder of a lock"
        )

    async def channel(self) -> AMQPChannel:
        """Return a new channel.

        Raises:
            ConnectionLost: The connection, and with it the lock, is gone.
        """
        async with self.bounded():
            channel = await self._link.channel(confirms=False)
        self._check(channel)
        return channel

    async def run(self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str) -> T:
        """Return what `operation` returns on a channel of its own.

        The errors are those of `run_on_new_channel`.
        """

        async def checked(channel: AMQPChannel) -> T:
            self._check(channel)
            return await operation(channel)

        return await self._on_own_channel(checked, doing)

    @contextlib.asynccontextmanager
    async def bounded(self) -> AsyncGenerator[None]:
        """Raise `ConnectionLost` where the block takes longer than the lock's timeout.

        Without it, the link would wait for a broker that is away.
        """
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise ConnectionLost("the connection was lost") from error

    async def _on_own_channel(
        self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str
    ) -> T:
        async with self.bounded():
            return await run_on_new_channel(
                self._link, operation, doing=doing, timeout=self._timeout
            )

    def _check(self, channel: AMQPChannel) -> None:
        if channel.connection is not self._connection:
            raise ConnectionLost("the connection was lost")

    async def _declare(self, channel: AMQPChannel) -> bool:
        try:
            await channel.queue_declare(self._name, exclusive=True)
        except ChannelLockedResource:
            return False
        self._connection = channel.connection
        return True

    async def _name_holder(self, channel: AMQPChannel, client_name: str) -> None:
        # A holder that was killed in this method can have left the exchange behind.
        await channel.exchange_delete(self._name)
        try:
            await channel.exchange_declare(
                exchange=self._name,
                exchange_type="fanout",
                auto_delete=True,
                arguments={_ALTERNATE: _HOLDER + _described(client_name)},
            )
        except ChannelPreconditionFailed:
            return  # Another client asked for the holder just now. The lock has no name then.
        # The exchange is deleted with its last binding, and so with the queue. Until then, it is
        # unused, and another client that asked for the holder just now may delete it.
        with contextlib.suppress(ChannelNotFoundEntity):
            await channel.queue_bind(self._name, self._name)

    async def _holder(self, channel: AMQPChannel) -> str:
        try:
            await channel.exchange_declare(
                exchange=self._name, exchange_type="fanout", auto_delete=True
            )
        except ChannelPreconditionFailed as error:
            found = _HOLDER_IN_ERROR.search(reason(error))
            return found["holder"] if found else _UNKNOWN
        await channel.exchange_delete(self._name, if_unused=True)
        return _UNKNOWN


_UNKNOWN = "another client"


def _described(client_name: str) -> str:
    text = f"pid {os.getpid()} on host {socket.gethostname()}, {client_name}"
    return text.replace("'", "").encode()[:_MOST_HOLDER_BYTES].decode("utf-8", "ignore")
