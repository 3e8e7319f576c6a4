"""`BrokerLock`: a lock that at most one connection to a broker holds."""

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
from lightbus_rabbitmq.driver.errors import ConnectionLost, error_text
from lightbus_rabbitmq.driver.operations import AMQPChannel, run_on_new_channel

T = TypeVar("T")

# How long to wait before the next try, in seconds
_RETRY_PERIOD = 0.1

# The name of an alternate exchange that does not exist. It must begin with "lightbus:", which is
# where a service usually has the permission to write.
_HOLDER = "lightbus::holder:"
_ALTERNATE = "alternate-exchange"
# RabbitMQ cuts the text of an error after 255 bytes.
_HOLDER_IN_ERROR = re.compile(rf"current is .*{_HOLDER}(?P<holder>[^']*)")
_MAX_HOLDER_BYTES = 90
_UNKNOWN_HOLDER = "another client"


class LockHeld(Exception):
    """Another connection holds the lock.

    Attributes:
        holder: A description of the client that holds it.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"the lock is held by {holder}")
        self.holder = holder


class BrokerLock:
    """A lock at the broker that ends with its connection.

    The lock is an exclusive queue. RabbitMQ shows nothing of an exclusive queue to other
    connections. So an exchange of the same name has an argument that describes the holder. RabbitMQ
    reports that argument to a client that declares the exchange without it.

    Args:
        connection: A connection that nothing else uses. Every operation under the lock goes
            through the lock, because the connection could silently reconnect and lose the lock.
        name: The name of the queue and of the exchange.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(self, connection: ReconnectingConnection, name: str, *, timeout: float) -> None:
        self._connection = connection
        self._name = name
        self._timeout = timeout
        self._locked_by: aiormq.abc.AbstractConnection | None = None

    async def acquire(self, client_name: str, *, timeout: float) -> None:
        """Acquire the lock; wait while another connection holds it.

        Args:
            client_name: The name of this client, which other clients see.
            timeout: How long to wait, in seconds. RabbitMQ takes a moment to notice that a process
                was killed.

        Raises:
            LockHeld: Another connection still holds it.
            ConnectionLost: The connection was lost.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        while not await self._run(self._declare, "to acquire a lock"):
            if now() >= deadline:
                raise LockHeld(await self._run(self._holder, "who holds a lock"))
            await asyncio.sleep(_RETRY_PERIOD)
        await self._run(
            lambda channel: self._describe_holder(channel, client_name),
            "to describe the holder of a lock",
        )

    async def channel(self) -> AMQPChannel:
        """Return a new channel.

        Raises:
            ConnectionLost: The connection was lost, and the lock with it.
        """
        async with self.limit_time():
            channel = await self._connection.channel(confirms=False)
        self._check_held(channel)
        return channel

    async def run(self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str) -> T:
        """Return what `operation` returns on a channel of its own.

        The errors are those of `run_on_new_channel`.
        """

        async def run_under_lock(channel: AMQPChannel) -> T:
            self._check_held(channel)
            return await operation(channel)

        return await self._run(run_under_lock, doing)

    @contextlib.asynccontextmanager
    async def limit_time(self) -> AsyncGenerator[None]:
        """Raise `ConnectionLost` if the block takes longer than the lock's timeout.

        Without the limit, the connection would wait for a broker that is down.
        """
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise ConnectionLost("the connection was lost") from error

    async def _run(self, operation: Callable[[AMQPChannel], Awaitable[T]], doing: str) -> T:
        async with self.limit_time():
            return await run_on_new_channel(
                self._connection, operation, doing=doing, timeout=self._timeout
            )

    def _check_held(self, channel: AMQPChannel) -> None:
        if channel.connection is not self._locked_by:
            raise ConnectionLost("the connection was lost")

    async def _declare(self, channel: AMQPChannel) -> bool:
        try:
            await channel.queue_declare(self._name, exclusive=True)
        except ChannelLockedResource:
            return False
        self._locked_by = channel.connection
        return True

    async def _describe_holder(self, channel: AMQPChannel, client_name: str) -> None:
        # A holder that was killed in this method can have left the exchange behind.
        await channel.exchange_delete(self._name)
        try:
            await channel.exchange_declare(
                exchange=self._name,
                exchange_type="fanout",
                auto_delete=True,
                arguments={_ALTERNATE: _HOLDER + _description(client_name)},
            )
        except ChannelPreconditionFailed:
            return  # Another client asked for the holder just now, so there is no description.
        # The exchange is deleted with its last binding, and so with the queue. Until it is bound,
        # another client that asks for the holder may delete it.
        with contextlib.suppress(ChannelNotFoundEntity):
            await channel.queue_bind(self._name, self._name)

    async def _holder(self, channel: AMQPChannel) -> str:
        try:
            await channel.exchange_declare(
                exchange=self._name, exchange_type="fanout", auto_delete=True
            )
        except ChannelPreconditionFailed as error:
            found = _HOLDER_IN_ERROR.search(error_text(error))
            return found["holder"] if found else _UNKNOWN_HOLDER
        await channel.exchange_delete(self._name, if_unused=True)
        return _UNKNOWN_HOLDER


def _description(client_name: str) -> str:
    text = f"pid {os.getpid()} on host {socket.gethostname()}, {client_name}"
    return text.replace("'", "").encode()[:_MAX_HOLDER_BYTES].decode("utf-8", "ignore")
