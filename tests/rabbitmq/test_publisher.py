"""The messages that firing sends to RabbitMQ, and the errors that it raises."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from yarl import URL

from lightbus import Bus, EventMessage, Worker
from lightbus.exceptions import (
    SendOutcomeUnknown,
    SendRefused,
)
from rabbitmq_node import RabbitMQNode
from rabbitmq_server import RabbitMQServer
from rabbitmq_support import QUEUE, Broker, MakeBus, Seen, headers_of
from tcp_proxy import running_proxy


async def test_the_body_is_plain_json_and_the_rest_are_properties(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    message = await bus.auth.user_created.fire_async(username="ada", email="ada@example.com")
    sent = await broker.get(QUEUE)

    properties = sent.header.properties
    assert json.loads(sent.body) == {"username": "ada", "email": "ada@example.com"}
    assert properties.message_id == message.id
    assert properties.message_type == "auth.user_created"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.app_id == "shop"
    assert properties.timestamp == message.fired_at.replace(microsecond=0)
    headers = headers_of(sent)
    # The queue adds it. From RabbitMQ 4.0 on, it does not add a count of 0.
    assert headers.pop("x-delivery-count", 0) == 0
    assert headers == {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": message.id,
        "cloudEvents:type": "auth.user_created",
        "cloudEvents:source": "/shop",
        "cloudEvents:time": message.fired_at.isoformat(),
        "lightbus-api-version": 1,
    }


async def test_a_message_arrives_as_it_was_fired(make_bus: MakeBus) -> None:
    bus = make_bus()
    seen = Seen[EventMessage]()

    async def welcome(event: EventMessage) -> None:
        await seen.add(event)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus):
        fired = await bus.auth.user_created.fire_async(username="Zoë 🚀", email=2**100)

        assert await seen.wait_for(1) == [fired]
        assert seen.items[0].kwargs == {"username": "Zoë 🚀", "email": 2**100}


SMALL = {"pattern": ".*", "definition": {"max-length": 1}, "apply-to": "queues"}


async def fill(bus: Bus, stored: list[str]) -> None:
    """Fire until a queue refuses an event; add the events that it stores to `stored`."""
    for _ in range(20):
        await bus.auth.user_created.fire_async(username="early", email="e")
        stored.append("early")


async def test_firing_to_a_queue_that_stays_full_raises_send_refused(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    rabbitmq_server.api("PUT", f"policies/{rabbitmq_vhost}/small", SMALL)
    bus = make_bus(fire_timeout=2)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    with pytest.raises(SendRefused) as raised:
        await fill(bus, [])

    assert raised.value.event_id in str(raised.value)


@pytest.mark.parametrize(
    "field",
    [
        {"id": "x" * 300},
        {"id": "\ud800"},
        {"service_name": "x" * 300},
        {"version": 10**30},
        {"fired_at": datetime(1, 1, 1, tzinfo=UTC)},
        {"traceparent": "x" * 200_000},
    ],
    ids=lambda field: next(iter(field)),
)
async def test_an_event_that_amqp_cannot_represent_is_refused_and_affects_no_other(
    make_bus: MakeBus, field: dict[str, Any]
) -> None:
    bus = make_bus()
    good = EventMessage.create("auth", "user_created", {"username": "ann", "email": "e"})
    bad = attrs.evolve(good, **field)

    with pytest.raises(SendRefused):
        await bus.client.fire_async(bad)

    await bus.client.fire_async(good)


async def test_firing_waits_for_room_in_a_full_queue(
    make_bus: MakeBus, rabbitmq_server: RabbitMQServer, rabbitmq_vhost: str
) -> None:
    rabbitmq_server.api("PUT", f"policies/{rabbitmq_vhost}/small", SMALL)
    filling, waiting = make_bus(fire_timeout=2), make_bus(fire_timeout=20)
    seen = Seen[str]()
    for bus in filling, waiting:
        bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    stored: list[str] = []
    with pytest.raises(SendRefused):
        await fill(filling, stored)

    firing = asyncio.create_task(waiting.auth.user_created.fire_async(username="late", email="e"))
    await asyncio.wait({firing}, timeout=1)
    assert not firing.done()

    async with Worker(waiting):
        await firing
        assert sorted(await seen.wait_for(len(stored) + 1)) == [*stored, "late"]


async def test_a_broker_that_goes_silent_leaves_the_outcome_unknown(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        bus = make_bus(url=f"amqp://127.0.0.1:{proxy.port}/{rabbitmq_vhost}", fire_timeout=0.5)
        await bus.auth.user_created.fire_async(username="ada", email="e")
        proxy.silence()

        with pytest.raises(SendOutcomeUnknown) as raised:
            await bus.auth.user_created.fire_async(username="bob", email="e")

        assert raised.value.timeout == pytest.approx(0.5, abs=0.1)
        proxy.resume()
        await bus.client.close_async()


async def test_events_in_flight_when_the_connection_is_cut_are_sent_again(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    bus = make_bus()
    seen: set[str] = set()
    all_seen = asyncio.Event()

    async def welcome(username: str) -> None:
        seen.add(username)
        if len(seen) == 500:
            all_seen.set()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus):
        firing = asyncio.gather(
            *(bus.auth.user_created.fire_async(username=f"u{i}", email="e") for i in range(500))
        )
        await asyncio.to_thread(rabbitmq_node.close_connections, rabbitmq_vhost)
        await firing

        async with asyncio.timeout(30):
            await all_seen.wait()


async def test_no_sender_keeps_waiting_on_a_connection_that_was_cut(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        url = str(URL(rabbitmq_node.url(rabbitmq_vhost)).with_port(proxy.port))
        for _ in range(5):
            bus = make_bus(url=url)
            fire = bus.auth.user_created.fire_async
            firing = [asyncio.create_task(fire(username=f"u{i}", email="e")) for i in range(500)]
            for _ in range(3):
                await asyncio.sleep(random.uniform(0, 0.15))  # connecting, declaring, sending
                proxy.cut()

            async with asyncio.timeout(8):  # much less than the fire timeout of 30 s
                await asyncio.gather(*firing)


async def test_closing_waits_for_events_in_flight(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="first", email="e")

    firing = [
        asyncio.create_task(bus.auth.user_created.fire_async(username=f"u{i}", email="e"))
        for i in range(100)
    ]
    await asyncio.sleep(0)
    await bus.client.close_async()
    await asyncio.gather(*firing)

    assert await broker.count(QUEUE) == 101


async def test_ten_concurrent_closes_have_the_effect_of_one(make_bus: MakeBus) -> None:
    bus = make_bus()
    await bus.auth.user_created.fire_async(username="ada", email="e")

    await asyncio.gather(*(bus.client.close_async() for _ in range(10)))

    await bus.auth.user_created.fire_async(username="ada", email="e")
