"""Reads the dead letters of a service, and leaves them where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiormq.abc
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from lightbus.exceptions import TransportUnavailable
from lightbus.transport import DeadLetter
from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.connection import Link, unless_lost
from lightbus_rabbitmq.errors import ConnectionLost, translated


async def dead_letters_of(
    link: Link, service_name: str, *, timeout: float
) -> AsyncIterator[DeadLetter]:
    """Yield the dead letters of a service, oldest first.

    Raises:
        TransportUnavailable: RabbitMQ did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    queue = names.dead_letter_queue(service_name)
    try:
        channel = await link.channel(confirms=False)
        try:
            while (got := await _get(channel, queue, timeout=timeout)) is not None:
                yield headers.dead_letter_of(got)
        finally:
            # What was not acknowledged goes back to its old place.
            if not channel.is_closed:
                await unless_lost(channel.connection, channel.close())
    except ConnectionLost as error:
        raise TransportUnavailable(
            f"The dead letters of service {service_name!r} could not be read: {error}."
        ) from error


async def _get(
    channel: aiormq.abc.AbstractChannel, queue: str, *, timeout: float
) -> DeliveredMessage | None:
    try:
        async with asyncio.timeout(timeout):
            got = await unless_lost(channel.connection, channel.basic_get(queue))
    except TimeoutError as error:
        raise ConnectionLost(f"RabbitMQ did not answer within {timeout:g} s") from error
    except ChannelNotFoundEntity:
        return None  # no listener of the service was ever started
    except (Exception, asyncio.CancelledError) as error:
        if meaning := translated(error, f"to read {queue!r}"):
            raise meaning from error
        raise
    return None if isinstance(got.delivery, Basic.GetEmpty) else got
