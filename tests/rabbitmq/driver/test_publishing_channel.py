"""The channel that all senders share is replaced, and declares the exchanges of APIs."""

from __future__ import annotations

import asyncio

import pytest

from lightbus import EventMessage
from lightbus.exceptions import (
    SendRefused,
    TopologyMismatch,
)
from lightbus_rabbitmq.driver.channel import Channel
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import Broker, MakeBus


@pytest.mark.faults
async def test_a_channel_on_which_a_queue_refuses_events_is_replaced(
    make_bus: MakeBus,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_vhost: str,
    broker: Broker,
    opened_channels: list[Channel],
) -> None:
    small = {"pattern": ":welcome:", "definition": {"max-length": 1}, "apply-to": "queues"}
    rabbitmq_server.api("PUT", f"policies/{rabbitmq_vhost}/small", small)
    bus = make_bus(fire_timeout=5)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    bus.auth.user_deleted.listen(lambda username: None, listener_name="farewell")
    await bus.auth.user_deleted.fire_async(username="ada")
    (first,) = [channel for channel in opened_channels if not channel.is_closed]

    create = bus.auth.user_created.fire_async
    creating = asyncio.gather(
        *(create(username="ada", email="e") for _ in range(50)), return_exceptions=True
    )
    count = 1
    while not creating.done():
        await asyncio.gather(*(bus.auth.user_deleted.fire_async(username="ada") for _ in range(20)))
        count += 20

    assert any(isinstance(outcome, SendRefused) for outcome in await creating)
    async with asyncio.timeout(20):
        while not first.is_closed:  # noqa: ASYNC110 - the publisher closes it in the background
            await asyncio.sleep(0.05)
    assert len([channel for channel in first.connection.channels.values() if channel]) <= 1
    # No event was sent twice when the channel was replaced.
    assert await broker.count("lightbus:shop:farewell:auth") == count


async def test_an_exchange_that_someone_deleted_is_declared_again(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    await bus.auth.user_created.fire_async(username="ada", email="e")
    await broker.channel.exchange_delete("lightbus:auth")

    await bus.auth.user_created.fire_async(username="bob", email="e")

    await broker.channel.exchange_declare("lightbus:auth", passive=True)


async def test_an_api_that_cannot_be_declared_delays_no_other(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    await bus.auth.user_created.fire_async(username="ann", email="e")
    await broker.channel.exchange_declare("lightbus:bad", exchange_type="fanout", durable=True)
    bad = EventMessage.create("bad", "happened", {})

    refused = [asyncio.create_task(bus.client.fire_async(bad)) for _ in range(200)]
    await asyncio.sleep(0)
    await bus.auth.user_created.fire_async(username="bob", email="e")

    assert not all(one.done() for one in refused)
    for one in refused:
        with pytest.raises(TopologyMismatch):
            await one
