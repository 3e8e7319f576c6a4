"""`RabbitMQTransport`: the transport contract over RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from lightbus.message import EventMessage
from lightbus.transport import DeadLetter, EventTransport, Subscription
from lightbus_rabbitmq import topology
from lightbus_rabbitmq.connection import Link
from lightbus_rabbitmq.consumer import RabbitMQStream
from lightbus_rabbitmq.dead_letters import dead_letters_of
from lightbus_rabbitmq.errors import ConnectionLost
from lightbus_rabbitmq.headers import properties_of
from lightbus_rabbitmq.publisher import Publisher
from lightbus_rabbitmq.settings import RabbitMQSettings

_PAUSE = 0.1


class RabbitMQTransport(EventTransport):
    """Sends and consumes on connections of their own, for a broker that is short of memory stops
    reading from those that send.
    """

    Settings: ClassVar[type[Any]] = RabbitMQSettings

    def __init__(self, settings: RabbitMQSettings, *, client_name: str) -> None:
        self._settings = settings
        self._sending = Link(settings, f"{client_name} sending")
        self._consuming = Link(settings, f"{client_name} consuming")
        self._publisher = Publisher(self._sending, operation_timeout=settings.operation_timeout)
        self._streams: list[RabbitMQStream] = []

    async def open(self, *, timeout: float) -> None:
        await self._sending.open(timeout=timeout)

    async def send(self, message: EventMessage, *, timeout: float) -> None:
        await self._publisher.send_event(
            message.api_name,
            message.event_name,
            message.body,
            properties_of(message),
            timeout=timeout,
        )

    async def declare(self, subscription: Subscription, *, timeout: float) -> None:
        operation_timeout = self._settings.operation_timeout
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await topology.ensure_subscription(
                            self._sending, subscription, timeout=operation_timeout
                        )
                        return
                    except ConnectionLost:
                        await asyncio.sleep(_PAUSE)
        except TimeoutError as error:
            raise self._sending.unavailable(timeout) from error

    async def subscribe(self, subscription: Subscription) -> RabbitMQStream:
        stream = RabbitMQStream(self._consuming, self._publisher, self._settings, subscription)
        try:
            await stream.start()
        except BaseException:
            await stream.aclose()
            raise
        self._streams = [*(open_ for open_ in self._streams if not open_.is_closed), stream]
        return stream

    async def dead_letters(self, service_name: str) -> AsyncIterator[DeadLetter]:
        async for letter in dead_letters_of(
            self._sending, service_name, timeout=self._settings.operation_timeout
        ):
            yield letter

    async def close(self) -> None:
        streams, self._streams = self._streams, []
        await asyncio.gather(*(stream.aclose() for stream in streams))
        await self._publisher.close()
        await self._consuming.close()
        await self._sending.close()
