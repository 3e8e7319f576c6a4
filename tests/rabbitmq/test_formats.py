"""The formats at RabbitMQ, byte for byte, except for ids, times and host names."""

from __future__ import annotations

from typing import Any

from aiormq.abc import DeliveredMessage

from golden_files import assert_format, typed, with_placeholders
from lightbus import OnError, Worker
from rabbitmq_support import Broker, MakeBus, Topology, headers_of

VARYING = {
    "message_id": "id of the event",
    "timestamp": "time of the firing, in whole seconds",
    "cloudEvents:id": "id of the event",
    "cloudEvents:time": "time of the firing",
    "lightbus-traceback": "traceback",
    "lightbus-process": "process name",
    "lightbus-host": "host name",
    "lightbus-pid": "process id",
    "lightbus-first-failed-at": "time of the first failure",
    "lightbus-last-failed-at": "time of the last failure",
}


def format_of(message: DeliveredMessage) -> Any:
    """Return the parts of a message that other versions read."""
    properties = dict(message.header.properties)
    del properties["headers"]
    headers = headers_of(message)
    # RabbitMQ 3.10 also adds a count of 0, and RabbitMQ 4.3 does not.
    headers.pop("x-delivery-count", None)
    return with_placeholders(
        {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "properties": typed({name: value for name, value in properties.items() if value}),
            "headers": typed(headers),
            "body": message.body.decode(),
        },
        VARYING,
    )


def fails(username: str) -> None:
    raise ValueError(username)


async def test_an_event_is_sent_in_the_same_format_as_ever(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(fails, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="ada@example.com")

    assert_format("event.json", format_of(await broker.get("lightbus:shop:welcome:auth")))


async def test_an_event_is_sent_again_for_a_retry_in_the_same_format_as_ever(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(acknowledgement_timeout=60)
    bus.auth.user_created.listen(fails, listener_name="welcome")

    worker = Worker(bus)
    await worker.start()
    await bus.auth.user_created.fire_async(username="ada", email="ada@example.com")
    found = format_of(await broker.wait_for_message("lightbus::delay:60000"))
    await worker.stop()

    assert_format("retry.json", found)


async def test_a_dead_letter_is_sent_in_the_same_format_as_ever(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(
        fails, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )

    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="ada@example.com")
        found = format_of(await broker.wait_for_message("lightbus:shop:dead"))

    assert_format("dead_letter.json", found)


async def test_the_objects_of_a_listener_have_the_same_names_and_arguments_as_ever(
    make_bus: MakeBus, topology: Topology
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(fails, listener_name="welcome")
    async with Worker(bus):
        pass

    found = {
        "exchanges": dict(sorted(topology.exchanges().items())),
        "queues": dict(sorted(topology.queues().items())),
        "bindings": [" ".join(parts) for parts in sorted(topology.bindings())],
    }
    assert_format("topology.json", found)
