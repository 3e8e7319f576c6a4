"""The exchanges and queues that a listener declares."""

from __future__ import annotations

import pytest

from lightbus import Api, Event, EventMessage, OnError, Worker
from lightbus.exceptions import TopologyMismatch
from rabbitmq_support import QUEUE, Broker, MakeBus, Seen, Topology

LOSSLESS = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


async def test_a_listener_has_a_quorum_queue_and_all_objects_for_failures(
    make_bus: MakeBus, topology: Topology
) -> None:
    bus = make_bus(acknowledgement_timeout=60)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    async with Worker(bus):
        pass

    assert topology.queues() == {
        QUEUE: {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "lightbus:shop:dead",
            "x-delivery-limit": 20,
            **LOSSLESS,
        },
        "lightbus::delay:60000": {
            "x-queue-type": "quorum",
            "x-message-ttl": 60000,
            "x-dead-letter-exchange": "lightbus::return",
            **LOSSLESS,
        },
        "lightbus:shop:dead": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
        "lightbus::unrouted": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
    }
    assert topology.exchanges() == {
        "lightbus:auth": ("topic", {}),
        "lightbus::delay": ("topic", {}),
        "lightbus::return": ("topic", {"alternate-exchange": "lightbus::unrouted"}),
        "lightbus::unrouted": ("fanout", {}),
    }
    assert topology.bindings() == {
        ("lightbus:auth", "user_created", QUEUE),
        ("lightbus::return", f"*.{QUEUE}", QUEUE),
        ("lightbus::delay", "60000.#", "lightbus::delay:60000"),
        ("lightbus::unrouted", "", "lightbus::unrouted"),
    }


async def test_firing_declares_only_the_exchange(make_bus: MakeBus, topology: Topology) -> None:
    await make_bus().auth.user_created.fire_async(username="ada", email="e")

    assert topology.exchanges() == {"lightbus:auth": ("topic", {})}
    assert topology.queues() == {}


async def test_a_queue_with_other_settings_stops_the_start_and_shows_the_difference(
    make_bus: MakeBus, broker: Broker
) -> None:
    await broker.channel.queue_declare(
        QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3}
    )
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    with pytest.raises(TopologyMismatch, match=r"x-delivery-limit|x-dead-letter") as raised:
        await Worker(bus).run()

    assert QUEUE in str(raised.value)


async def test_a_delayed_event_whose_listener_is_gone_is_parked(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=1)

    async def fail(username: str) -> None:
        raise ValueError(username)

    bus.auth.user_created.listen(fail, listener_name="welcome")
    message = await bus.auth.user_created.fire_async(username="ada", email="e")
    with pytest.raises(ValueError, match="ada"):
        await Worker(bus).run()
    await broker.channel.queue_delete(QUEUE)

    parked = await broker.wait_for_message("lightbus::unrouted")

    assert parked.header.properties.message_id == message.id


@pytest.mark.parametrize("api_name", ["delay", "return", "unrouted", "migration-lock"])
async def test_an_api_may_have_the_name_of_an_object_of_lightbus(
    make_bus: MakeBus, topology: Topology, api_name: str
) -> None:
    seen = Seen[str]()
    bus = make_bus(acknowledgement_timeout=1, retry={"first": 0.1, "longest": 0.1})

    async def fail_once(event: EventMessage) -> None:
        await seen.add(event.id)
        if len(seen.items) == 1:
            raise ValueError(event.id)

    bus.client.listen_for_event(
        api_name, "changed", fail_once, listener_name="watch", on_error=OnError.RETRY
    )
    meta = type("Meta", (), {"name": api_name})
    firing = make_bus(service_name="other")
    firing.client.register_api(type("SomeApi", (Api,), {"changed": Event(), "Meta": meta}))

    async with Worker(bus):
        message = firing.client.publisher.message(api_name, "changed", {})
        await firing.client.fire_async(message)
        assert await seen.wait_for(2) == [message.id, message.id]

    assert topology.exchanges()[f"lightbus:{api_name}"] == ("topic", {})
