"""Declares the exchanges, queues and bindings that sending and listening need."""

from __future__ import annotations

from collections.abc import Iterable

from lightbus.transport.records import Subscription
from lightbus_rabbitmq import names
from lightbus_rabbitmq.driver.connection import ReconnectingConnection
from lightbus_rabbitmq.driver.operations import AMQPChannel, run_on_new_channel
from lightbus_rabbitmq.topology import declarations
from lightbus_rabbitmq.topology.declarations import Declaration


async def declare_api(connection: ReconnectingConnection, api_name: str, *, timeout: float) -> None:
    """Declare the exchange of an API.

    The errors are those of `run_on_new_channel`.
    """
    needed = [declarations.api_exchange(api_name)]
    what = f"the exchange of API {api_name!r}"
    await _declare(connection, needed, what=what, timeout=timeout)


async def declare_dead_letter_queue(
    connection: ReconnectingConnection, service_name: str, *, timeout: float
) -> None:
    """Declare the dead letter queue of a service.

    The errors are those of `run_on_new_channel`.
    """
    queue = declarations.dead_letter_queue(service_name)
    await _declare(connection, [queue], what=f"dead letter queue {queue.name!r}", timeout=timeout)


async def declare_subscription(
    connection: ReconnectingConnection, subscription: Subscription, *, timeout: float
) -> None:
    """Declare what a listener needs: its queue, delay queues, and the dead letter queue.

    The errors are those of `run_on_new_channel`.
    """
    needed = declarations.of_subscription(subscription)
    what = f"listener queue {names.listener_queue(subscription)!r}"
    await _declare(connection, needed, what=what, timeout=timeout)


async def _declare(
    connection: ReconnectingConnection,
    needed: Iterable[Declaration],
    *,
    what: str,
    timeout: float,
) -> None:
    async def declare(channel: AMQPChannel) -> None:
        for declaration in needed:
            await declaration.declare(channel)

    await run_on_new_channel(connection, declare, doing=f"to declare {what}", timeout=timeout)
