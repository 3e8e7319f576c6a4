"""Runs single operations at the broker, each on a channel of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiormq.abc
import attrs
from aiormq.exceptions import ChannelNotFoundEntity

from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.errors import ConnectionLost, translate_error
from lightbus_rabbitmq.driver.waiting import run_while_connected

T = TypeVar("T")

AMQPChannel = aiormq.abc.AbstractChannel


@attrs.frozen
class QueueCounts:
    """The numbers that the broker reports about a queue.

    Attributes:
        ready: How many messages are ready for delivery.
        users: How many consumers the queue has. A quorum queue also counts each client that still
            holds messages: a consumer that was cancelled, and a client that fetched messages with
            ``basic.get``.
    """

    ready: int
    users: int


async def run_on_new_channel(
    connection: ReconnectingConnection,
    operation: Callable[[AMQPChannel], Awaitable[T]],
    *,
    doing: str,
    timeout: float,
) -> T:
    """Return what `operation` returns. It gets a channel of its own, which an error closes.

    Args:
        connection: The connection for the channel.
        operation: Gets the channel.
        doing: What the operation does, for errors, such as ``"to declare queue 'a'"``.
        timeout: How long the broker may take, in seconds.

    Raises:
        TopologyMismatch: The broker has an object with other settings, which the message names.
        TransportRefused: The broker's permissions do not allow it.
        ConnectionLost: The connection was lost, or the broker did not answer in `timeout` seconds.
    """
    channel = await connection.channel(confirms=False)
    try:
        async with asyncio.timeout(timeout):
            return await run_while_connected(channel.connection, _run_and_close(channel, operation))
    except TimeoutError as error:
        raise ConnectionLost(f"no answer within {timeout:g} s when asked {doing}") from error
    except (Exception, asyncio.CancelledError) as error:
        channel.give_up()  # cancelled, the driver closes it
        if meaning := translate_error(error, doing):
            raise meaning from error
        raise


async def _run_and_close(
    channel: AMQPChannel, operation: Callable[[AMQPChannel], Awaitable[T]]
) -> T:
    result = await operation(channel)
    if not channel.is_closed:
        await channel.close()
    return result


async def queue_counts(
    connection: ReconnectingConnection, queue: str, *, timeout: float
) -> QueueCounts | None:
    """Return the numbers of a queue; None if the queue does not exist.

    The errors are those of `run_on_new_channel`.
    """
    return await run_on_new_channel(
        connection,
        lambda channel: queue_counts_on(channel, queue),
        doing=f"to look at queue {queue!r}",
        timeout=timeout,
    )


async def queue_counts_on(channel: AMQPChannel, queue: str) -> QueueCounts | None:
    """Return the numbers of a queue; None if it does not exist, which closes the channel."""
    try:
        declared = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    return QueueCounts(int(declared.message_count or 0), int(declared.consumer_count or 0))
