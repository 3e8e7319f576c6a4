"""Shared by the tests of the RabbitMQ transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from lightbus import Api, Bus, Event
from lightbus.transport.records import Subscription
from lightbus_rabbitmq import RabbitMQTransport
from rabbitmq_server import RabbitMQServer

T = TypeVar("T")

MakeBus = Callable[..., Bus]

# The names of the listener "welcome" of service "shop"
QUEUE = "lightbus:shop:welcome:auth"
DEAD = "lightbus:shop:dead"

CONNECTION_LOST = "Connection to RabbitMQ lost"


class Raw(Basic.Properties):
    """Properties with text that is not valid UTF-8, which no Python driver sends."""

    def marshal(self) -> bytes:
        return super().marshal().replace("raw-ÿ".encode(), b"raw-\xff\xff")


class _WithoutId(Basic.Properties):
    """Properties without the id that the driver gives each message."""

    def marshal(self) -> bytes:
        self.message_id = None
        return super().marshal()


class AuthApi(Api):
    """The API of the examples."""

    user_created = Event(parameters=("username", "email"))
    user_deleted = Event(parameters=("username",))

    class Meta:
        name = "auth"


def subscription(*, concurrency: int = 1) -> Subscription:
    """Return the subscription of the listener "welcome"."""
    return Subscription(
        service_name="shop",
        listener_name="welcome",
        api_name="auth",
        events=frozenset({"user_created"}),
        concurrency=concurrency,
        acknowledgement_timeout=60,
        delays=frozenset({60.0}),
    )


class Broker:
    """A direct connection to the broker, past the bus."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def count(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        declared = await self.channel.queue_declare(queue, passive=True)
        return int(declared.message_count or 0)

    async def get(self, queue: str) -> DeliveredMessage:
        """Get one message from a queue."""
        return await self.channel.basic_get(queue, no_ack=True)

    async def wait_for_count(self, queue: str, count: int) -> None:
        """Wait until that many messages are ready in a queue."""
        async with asyncio.timeout(20):
            while await self.count(queue) != count:  # noqa: ASYNC110 - the broker does not tell
                await asyncio.sleep(0.05)

    async def wait_for_consumer(self, queue: str) -> None:
        """Wait until a queue exists and has a consumer."""
        async with asyncio.timeout(20):
            while not await self._consumers(queue):  # noqa: ASYNC110 - the broker does not tell
                await asyncio.sleep(0.05)

    async def wait_for_no_consumer(self, queue: str) -> None:
        """Wait until no client consumes from a queue or holds its events."""
        async with asyncio.timeout(20):
            while await self._consumers(queue):  # noqa: ASYNC110 - the broker does not tell
                await asyncio.sleep(0.05)

    async def _consumers(self, queue: str) -> int:
        # A passive declaration of a missing queue closes the channel.
        channel = await self.channel.connection.channel()
        try:
            declared = await channel.queue_declare(queue, passive=True)
            await channel.close()
            return int(declared.consumer_count or 0)
        except ChannelNotFoundEntity:
            return 0

    async def wait_for_message(self, queue: str) -> DeliveredMessage:
        """Wait for a message in a queue, and return it."""
        arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        started = await self.channel.basic_consume(queue, arrived.put, no_ack=True)
        async with asyncio.timeout(20):
            message = await arrived.get()
        await self.channel.basic_cancel(str(started.consumer_tag))
        return message

    async def put(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
        """Send a message like another program."""
        await self.put_raw(exchange, routing_key, body, Basic.Properties(**properties))

    async def put_without_id(self, exchange: str, routing_key: str, body: bytes) -> None:
        """Send a message without an id, like another program."""
        await self.put_raw(exchange, routing_key, body, _WithoutId())

    async def put_raw(
        self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties
    ) -> None:
        """Send a message with given properties."""
        await self.channel.basic_publish(
            body, exchange=exchange, routing_key=routing_key, properties=properties
        )


def transport_of(bus: Bus) -> RabbitMQTransport:
    """Return the transport of a bus on the running loop."""
    transport = bus.client.transports.transport("auth").transport
    assert isinstance(transport, RabbitMQTransport)
    return transport


class Topology:
    """The objects in a virtual host, from the management API."""

    def __init__(self, server: RabbitMQServer, vhost: str) -> None:
        self._server = server
        self._vhost = quote(vhost, safe="")

    def queues(self) -> dict[str, dict[str, Any]]:
        """Return the arguments of each durable queue, by its name."""
        found = self._server.api("GET", f"queues/{self._vhost}")
        # A lock is an exclusive queue, which ends with its connection.
        kept = [queue for queue in found if not queue["exclusive"]]
        assert all(queue["durable"] for queue in kept)
        return {queue["name"]: _declared(queue["arguments"]) for queue in kept}

    def exchanges(self) -> dict[str, tuple[str, dict[str, Any]]]:
        found = self._server.api("GET", f"exchanges/{self._vhost}")
        # The exchange of a lock ends a moment after the connection of its holder.
        kept = [exchange for exchange in found if not exchange["auto_delete"]]
        own = [exchange for exchange in kept if exchange["name"].startswith("lightbus")]
        assert all(exchange["durable"] for exchange in own)
        return {exchange["name"]: (exchange["type"], exchange["arguments"]) for exchange in own}

    def bindings(self) -> set[tuple[str, str, str]]:
        found = self._server.api("GET", f"bindings/{self._vhost}")
        return {(b["source"], b["routing_key"], b["destination"]) for b in found if b["source"]}


def _declared(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a queue was declared with."""
    # RabbitMQ 4.3 also lists the type of a queue that was declared without one.
    return {name: value for name, value in arguments.items() if value != "classic"}


def headers_of(message: DeliveredMessage) -> dict[str, Any]:
    """Return the headers of a message."""
    return dict(message.header.properties.headers or {})


class Seen(Generic[T]):
    """The events that handlers have seen, which a test can await."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._news = asyncio.Condition()

    async def add(self, item: T) -> None:
        """Note that a handler has seen `item`."""
        async with self._news:
            self.items.append(item)
            self._news.notify_all()

    async def wait_for(self, count: int, *, timeout: float = 20.0) -> list[T]:
        """Wait until handlers have seen `count` items, and return all of them."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: len(self.items) >= count)
        return self.items

    async def wait_for_item(self, item: T, *, timeout: float = 20.0) -> None:
        """Wait until handlers have seen `item`."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: item in self.items)
