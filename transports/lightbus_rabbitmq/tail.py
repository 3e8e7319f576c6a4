"""`tail_of`: shows the events of an API as they are fired, from a temporary queue."""

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
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.waiting import close_quietly, run_quietly, run_while_connected
from lightbus_rabbitmq.topology.declare import declare_api

# How many events the queue holds for a slow reader. The oldest events are dropped then.
_MAX_LENGTH = 1000
_PREFETCH = 100

# When the queue is deleted if its consumer never starts, in milliseconds
_EXPIRES = 60_000


async def tail_of(
    connection: ReconnectingConnection, api_name: str, *, timeout: float
) -> AsyncGenerator[EventMessage]:
    """Return the events of an API that are sent from now on.

    Raises:
        ConnectionLost: The connection was lost, or the broker did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    await declare_api(connection, api_name, timeout=timeout)
    channel = await connection.channel(confirms=False)
    queue = f"lightbus::tail:{secrets.token_hex(8)}"
    # The prefetch limits its length. None marks the end.
    received: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
    try:
        async with asyncio.timeout(timeout):
            await run_while_connected(
                channel.connection, _consume(channel, api_name, queue, received)
            )
    except TimeoutError as error:
        await close_quietly(channel, timeout)
        raise ConnectionLost("RabbitMQ did not start to deliver events in time") from error
    except BaseException as error:
        await close_quietly(channel, timeout)
        if meaning := translate_error(error, f"to read the events of API {api_name!r}"):
            raise meaning from error
        raise
    channel.closing.add_done_callback(lambda _: received.put_nowait(None))
    return await start_generator(_events(channel, api_name, queue, received, timeout=timeout))


async def _consume(
    channel: Channel,
    api_name: str,
    queue: str,
    received: asyncio.Queue[DeliveredMessage | None],
) -> None:
    arguments: dict[str, Any] = {
        "x-max-length": _MAX_LENGTH,
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
        raise TransportUnavailable(
            f"The connection to RabbitMQ was lost while the events of API {api_name!r} were read."
        )
    finally:
        # The broker would delete the queue by itself, but would route events to it until then.
        if not channel.is_lost:
            deleting = channel.queue_delete(queue)
            await run_quietly(channel, deleting, doing="to delete a queue", timeout=timeout)
        await close_quietly(channel, timeout)
