"""Declares exchanges and queues, and asks about them, each time on a channel of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import attrs
from aiormq.exceptions import ChannelNotFoundEntity

from lightbus.transport.records import Subscription
from lightbus_rabbitmq import names, objects
from lightbus_rabbitmq.connection import Link
from lightbus_rabbitmq.errors import ConnectionLost, translated
from lightbus_rabbitmq.objects import Channel, Object
from lightbus_rabbitmq.waiting import unless_lost

T = TypeVar("T")


@attrs.frozen
class Count:
    """What a queue tells about itself.

    Attributes:
        ready: How many events can be taken.
        users: How many consume from it. A quorum queue also counts those that still hold events:
            a consumer that was cancelled, and one who took them without consuming.
    """

    ready: int
    users: int


async def ensure_api(link: Link, api_name: str, *, timeout: float) -> None:
    """Declare what firing the events of an API needs: its exchange.

    The errors are those of `on_own_channel`.
    """
    wanted = [objects.api_exchange(api_name)]
    await _declare(link, wanted, what=f"the exchange of API {api_name!r}", timeout=timeout)


async def ensure_dead_letters(link: Link, service_name: str, *, timeout: float) -> None:
    """Declare the queue that keeps the dead letters of a service.

    The errors are those of `on_own_channel`.
    """
    queue = objects.dead_letter_queue(service_name)
    await _declare(link, [queue], what=f"dead letter queue {queue.name!r}", timeout=timeout)


async def ensure_subscription(link: Link, subscription: Subscription, *, timeout: float) -> None:
    """Declare what a listener needs: its queue, its delays, and its service's dead letters.

    The errors are those of `on_own_channel`.
    """
    what = f"listener queue {names.listener_queue(subscription)!r}"
    await _declare(link, objects.of_subscription(subscription), what=what, timeout=timeout)


async def _declare(link: Link, wanted: Iterable[Object], *, what: str, timeout: float) -> None:
    async def declare(channel: Channel) -> None:
        for one in wanted:
            await one.declare(channel)

    await on_own_channel(link, declare, doing=f"to declare {what}", timeout=timeout)


async def count(link: Link, queue: str, *, timeout: float) -> Count | None:
    """Return what a queue tells about itself; None where there is none.

    The errors are those of `on_own_channel`.
    """
    return await on_own_channel(
        link,
        lambda channel: counted(channel, queue),
        doing=f"to look at queue {queue!r}",
        timeout=timeout,
    )


async def counted(channel: Channel, queue: str) -> Count | None:
    """Do what `count` does, on a channel that is closed where there is no such queue."""
    try:
        declared = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    return Count(int(declared.message_count or 0), int(declared.consumer_count or 0))


async def on_own_channel(
    link: Link, operation: Callable[[Channel], Awaitable[T]], *, doing: str, timeout: float
) -> T:
    """Return what `operation` returns. It has a channel of its own, which an error closes.

    Raises:
        TopologyMismatch: The broker holds an object with other settings, which the message names.
        TransportRefused: The broker's permissions do not allow it.
        ConnectionLost: The connection went away, or the broker did not answer in `timeout` seconds.
    """
    channel = await link.channel(confirms=False)
    try:
        async with asyncio.timeout(timeout):
            return await unless_lost(channel.connection, _run_and_close(channel, operation))
    except TimeoutError as error:
        raise ConnectionLost(f"no answer within {timeout:g} s when asked {doing}") from error
    except (Exception, asyncio.CancelledError) as error:
        channel.give_up()  # cancelled, the driver closes it
        if meaning := translated(error, doing):
            raise meaning from error
        raise


async def _run_and_close(channel: Channel, operation: Callable[[Channel], Awaitable[T]]) -> T:
    result = await operation(channel)
    if not channel.is_closed:
        await channel.close()
    return result
