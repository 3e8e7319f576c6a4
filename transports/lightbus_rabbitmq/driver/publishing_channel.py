"""`PublishingChannel`: the channel that all senders share, replaced when it is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.waiting import close_quietly

# How old a channel must be before it is replaced because a queue refused a message, in seconds. A
# full queue that refuses many events must not cause as many channels.
_MIN_CHANNEL_AGE = 1.0


class PublishingChannel:
    """A channel with confirms, opened when it is first needed.

    Args:
        connection: The connection for the channel.
        declare_api: Declares the exchange of an API.
        timeout: How long the broker may take for one answer, in seconds.
    """

    def __init__(
        self,
        connection: ReconnectingConnection,
        declare_api: Callable[[str], Awaitable[None]],
        *,
        timeout: float,
    ) -> None:
        self._connection = connection
        self._declare_api = declare_api
        self._timeout = timeout
        self._channel: Channel | None = None
        self._opened_at = 0.0
        self._declared_apis: set[str] = set()
        self._opening = asyncio.Lock()
        self._waiting: Counter[str | None] = Counter()
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self, api_name: str | None) -> Channel:
        """Return the channel, after the exchange of an API was declared.

        Args:
            api_name: The API; None if no exchange is to be declared.

        Raises:
            ConnectionLost: The connection was lost, or the broker did not answer.
            TransportError: The broker refused.
        """
        # Senders wait in line for the channel, so that events are sent in the order of firing.
        channel = self._channel_for(api_name)
        if channel is not None and not self._waiting[api_name]:
            return channel
        self._waiting[api_name] += 1
        try:
            async with self._opening:
                while (channel := self._channel_for(api_name)) is None:
                    await self._prepare(api_name)
                return channel
        finally:
            self._waiting[api_name] -= 1

    def release(self, channel: Channel) -> None:
        """End the use of a channel by one of its senders."""
        channel.senders -= 1
        if channel is not self._channel:
            self._close_unused(channel)

    def replace(self, channel: Channel) -> None:
        """Send no more on a channel on which a queue refused a message.

        The channel is closed when all its messages are confirmed.
        """
        # A channel that first uses a queue while the queue has no leader may refuse messages for as
        # long as it is open (seen on 3.10.8): it asks the same dead node each time.
        age = asyncio.get_running_loop().time() - self._opened_at
        if channel is self._channel and age > _MIN_CHANNEL_AGE:
            self._channel = None
            self._close_unused(channel)

    def forget_declarations(self) -> None:
        """Declare exchanges again before they are next used."""
        self._declared_apis.clear()

    async def close(self) -> None:
        """Cancel the closing of channels that were replaced. The connection closes the others."""
        for closing in self._closing:
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _channel_for(self, api_name: str | None) -> Channel | None:
        """Return the channel, if it is open and the exchange of the API was declared."""
        if self._channel is None or self._channel.is_lost:
            return None
        is_declared = api_name is None or api_name in self._declared_apis
        return self._channel if is_declared else None

    async def _prepare(self, api_name: str | None) -> None:
        if self._channel is None or self._channel.is_lost:
            if self._channel is not None:
                self._declared_apis.clear()
            self._channel = await self._connection.channel(confirms=True)
            self._opened_at = asyncio.get_running_loop().time()
        if api_name is not None and api_name not in self._declared_apis:
            await self._declare_api(api_name)
            self._declared_apis.add(api_name)

    def _close_unused(self, channel: Channel) -> None:
        if channel.senders == 0 and not channel.is_lost:
            closing = asyncio.create_task(close_quietly(channel, self._timeout))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
