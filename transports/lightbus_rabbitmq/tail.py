"""Shows the events of an API as they come, by a queue that nobody else has and that goes again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from aiormq.abc import DeliveredMessage

from lightbus.exceptions import TransportUnavailable
from lightbus.message import EventMessage
from lightbus.transport.kit import start_generator
from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.driver.channel import Channel
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, translated
from lightbus_rabbitmq.driver.waiting import close_quietly, quietly, unless_lost
from lightbus_rabbitmq.topology.declare import declare_api

# How many events are held for one who reads them too slowly: the oldest of them are left out then.
_MOST_WAITING = 1000
_PREFETCH = 100

# After how long a queue goes from which nobody has begun to consume, in milliseconds.
_EXPIRES = 60_000


async def tail_of(
    link: ReconnectingConnection, api_name: str, *, timeout: float
) -> AsyncGenerator[EventMessage]:
    """Return the events of an API that are sent from now on.

    Raises:
        ConnectionLost: The connection went away, or the broker did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    await declare_api(link, api_name, timeout=timeout)
    channel = await link.channel(confirms=False)
    queue = f"lightbus::tail:{secrets.token_hex(8)}"
    # Never longer than the prefetch. None marks the end.
    received: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
    try:
        async with asyncio.timeout(timeout):
            await unless_lost(channel.connection, _begin(channel, api_name, queue, received))
    except TimeoutError as error:
        await close_quietly(channel, timeout)
        raise ConnectionLost("RabbitMQ did not show events in time") from error
    except BaseException as error:
        await close_quietly(channel, timeout)
        if meaning := translated(error, f"to look at the events of API {api_name!r}"):
            raise meaning from error
        raise
    channel.closing.add_done_callback(lambda _: received.put_nowait(None))
    return await start_generator(_events(channel, api_name, queue, received, timeout=timeout))


async def _begin(
    channel: Channel,
    api_name: str,
    queue: str,
    received: asyncio.Queue[DeliveredMessage | None],
) -> None:
    arguments: dict[str, Any] = {
        "x-max-length": _MOST_WAITING,
        "x-overflow": "drop-head",
        "x-expires": _EXPIRES,
    }
    await channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments=arguments)
    await channel.queue_bind(queue, names.api_exchange(api_name), routing_key="#")
    await channel.basic_qos(prefetch_count=_PREFETCH)
    await channel.consume(queue, received.put_nowait, discards=True)


async def _events(
    channel: Channel,
    api_name: str,
    queue: str,
    received: asyncio.Queue[DeliveredMessage | None],
    *,
    timeout: float,
) -> AsyncGenerator[EventMessage | None]:
    try:
        yield None
        while (delivered := await received.get()) is not None:
            channel.ack(int(delivered.delivery_tag or 0))
            yield headers.message_of(delivered, api_name)
        raise TransportUnavailable(f"The events of API {api_name!r} are no longer seen.")
    finally:
        # The broker would delete it by itself, and take events into it for a moment more.
        if not channel.is_lost:
            deleting = channel.queue_delete(queue)
            await quietly(channel, deleting, doing="to delete a queue", timeout=timeout)
        await close_quietly(channel, timeout)
