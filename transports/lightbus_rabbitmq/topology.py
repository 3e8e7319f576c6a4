"""Declares the exchanges and queues. ``docs/rabbitmq.rst`` says what each is for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiormq.abc

from lightbus.transport import Subscription
from lightbus_rabbitmq import names
from lightbus_rabbitmq.connection import Link, unless_lost
from lightbus_rabbitmq.errors import ConnectionLost, translated

T = TypeVar("T")

Channel = aiormq.abc.AbstractChannel

DELIVERY_LIMIT = 20

_QUORUM = {"x-queue-type": "quorum"}

# Dead-lettering within the broker loses nothing only with both of these.
# https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
_LOSSLESS_DEAD_LETTERING = {
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

# Looking at a queue's events returns them, and what is returned too often, RabbitMQ 4 drops.
_NO_DELIVERY_LIMIT = {"x-delivery-limit": 1_000_000_000}


async def ensure_api(link: Link, api_name: str, *, timeout: float) -> None:
    """Declare what firing the events of an API needs: its exchange.

    The errors are those of `_declare_with`.
    """
    await _declare_with(
        link,
        lambda channel: _declare_api(channel, api_name),
        what=f"the exchange of API {api_name!r}",
        timeout=timeout,
    )


async def ensure_dead_letters(link: Link, service_name: str, *, timeout: float) -> None:
    """Declare the queue that keeps the dead letters of a service.

    The errors are those of `_declare_with`.
    """
    queue = names.dead_letter_queue(service_name)
    await _declare_with(
        link,
        lambda channel: _queue(channel, queue, **_NO_DELIVERY_LIMIT),
        what=f"dead letter queue {queue!r}",
        timeout=timeout,
    )


async def count(link: Link, queue: str, *, timeout: float) -> int:
    """Return how many events are ready to be taken from a queue.

    The errors are those of `_declare_with`.
    """

    async def ask(channel: Channel) -> int:
        declared = await channel.queue_declare(queue, passive=True)
        return int(declared.message_count or 0)

    return await _declare_with(link, ask, what=f"queue {queue!r}", timeout=timeout)


async def ensure_subscription(link: Link, subscription: Subscription, *, timeout: float) -> None:
    """Declare what a listener needs: its queue, its delays, and its service's dead letters.

    The errors are those of `_declare_with`.
    """
    await _declare_with(
        link,
        lambda channel: _declare_subscription(channel, subscription),
        what=f"listener queue {names.listener_queue(subscription)!r}",
        timeout=timeout,
    )


async def _declare_with(
    link: Link, declare: Callable[[Channel], Awaitable[T]], *, what: str, timeout: float
) -> T:
    """Run `declare` on a channel of its own, for a declaration that fails closes its channel.

    Raises:
        TopologyMismatch: The broker holds `what` with other settings, which the message names.
        TransportRefused: The broker's permissions do not allow it.
        ConnectionLost: The connection went away, or the broker did not answer in `timeout` seconds.
    """
    channel = await link.channel(confirms=False)
    try:
        async with asyncio.timeout(timeout):
            return await unless_lost(channel.connection, _declare_and_close(channel, declare))
    except TimeoutError as error:
        raise ConnectionLost(f"RabbitMQ did not declare {what} within {timeout:g} s") from error
    except (Exception, asyncio.CancelledError) as error:
        if meaning := translated(error, f"to declare {what}"):
            raise meaning from error
        raise


async def _declare_and_close(channel: Channel, declare: Callable[[Channel], Awaitable[T]]) -> T:
    result = await declare(channel)
    await channel.close()
    return result


async def _declare_api(channel: Channel, api_name: str) -> None:
    await _topic_exchange(channel, names.api_exchange(api_name))


async def _declare_subscription(channel: Channel, subscription: Subscription) -> None:
    queue = names.listener_queue(subscription)
    dead = names.dead_letter_queue(subscription.service_name)
    await _declare_api(channel, subscription.api_name)
    await _declare_returns(channel)
    await _queue(channel, dead, **_NO_DELIVERY_LIMIT)
    await _queue(
        channel,
        queue,
        **_dead_lettering_to("", dead),
        **{"x-delivery-limit": DELIVERY_LIMIT},
    )
    await _bind(channel, queue, names.RETURN_EXCHANGE, f"*.{queue}")
    for delay in sorted(subscription.delays):
        await _declare_delay(channel, names.in_milliseconds(delay))
    for event_name in sorted(subscription.events):
        await _bind(channel, queue, names.api_exchange(subscription.api_name), event_name)


async def _declare_returns(channel: Channel) -> None:
    await channel.exchange_declare(exchange=names.UNROUTED, exchange_type="fanout", durable=True)
    await _queue(channel, names.UNROUTED, **_NO_DELIVERY_LIMIT)
    await _bind(channel, names.UNROUTED, names.UNROUTED, "")
    await _topic_exchange(channel, names.DELAY_EXCHANGE)
    await _topic_exchange(channel, names.RETURN_EXCHANGE, {"alternate-exchange": names.UNROUTED})


async def _declare_delay(channel: Channel, milliseconds: int) -> None:
    queue = names.delay_queue(milliseconds)
    # No routing key: an event keeps the one that leads it back to its listener.
    await _queue(
        channel,
        queue,
        **_dead_lettering_to(names.RETURN_EXCHANGE),
        **{"x-message-ttl": milliseconds},
    )
    await _bind(channel, queue, names.DELAY_EXCHANGE, f"{milliseconds}.#")


def _dead_lettering_to(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    arguments = {"x-dead-letter-exchange": exchange, **_LOSSLESS_DEAD_LETTERING}
    return (
        arguments
        if routing_key is None
        else {**arguments, "x-dead-letter-routing-key": routing_key}
    )


async def _topic_exchange(
    channel: Channel, name: str, arguments: dict[str, Any] | None = None
) -> None:
    await channel.exchange_declare(
        exchange=name, exchange_type="topic", durable=True, arguments=arguments
    )


async def _queue(channel: Channel, name: str, **arguments: Any) -> None:
    await channel.queue_declare(queue=name, durable=True, arguments={**_QUORUM, **arguments})


async def _bind(channel: Channel, queue: str, exchange: str, routing_key: str) -> None:
    await channel.queue_bind(queue=queue, exchange=exchange, routing_key=routing_key)
