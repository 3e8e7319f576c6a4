"""Reads the dead letters of a service, and leaves those that are not discarded where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiormq.abc
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity
from pamqp.commands import Basic

from lightbus.exceptions import TransportUnavailable
from lightbus.transport import DeadLetter
from lightbus_rabbitmq import headers, names
from lightbus_rabbitmq.connection import Link
from lightbus_rabbitmq.errors import ConnectionLost, translated
from lightbus_rabbitmq.waiting import unless_lost


class RabbitMQDeadLetter(DeadLetter):
    """A message that is held while a service's dead letters are iterated over."""

    def __init__(self, delivered: DeliveredMessage, channel: aiormq.abc.AbstractChannel) -> None:
        self.message, self.failure = headers.dead_letter_of(delivered)
        self._delivered = delivered
        self._channel = channel

    async def discard(self) -> None:
        try:
            await self._channel.basic_ack(int(self._delivered.delivery_tag or 0), wait=False)
        except ChannelInvalidStateError as error:
            raise TransportUnavailable(
                f"Dead letter {self.message.id} was not discarded: the connection was lost."
            ) from error


async def dead_letters_of(
    link: Link, service_name: str, *, timeout: float
) -> AsyncGenerator[RabbitMQDeadLetter]:
    """Yield the dead letters of a service, oldest first.

    Raises:
        TransportUnavailable: RabbitMQ did not answer in `timeout` seconds.
        TransportRefused: The broker's permissions do not allow it.
    """
    queue = names.dead_letter_queue(service_name)
    try:
        channel = await link.until_connected(lambda: link.channel(confirms=False), timeout=timeout)
        try:
            while (got := await _get(channel, queue, timeout=timeout)) is not None:
                yield RabbitMQDeadLetter(got, channel)
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
