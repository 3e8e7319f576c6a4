"""Cases about the queues of listeners that are gone."""

from __future__ import annotations

import asyncio

import pytest

from lightbus.exceptions import ListenerInUse, ListenerQueueNotEmpty, NotDeclared
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.contract import EventTransport
from lightbus.transport.records import ListenerQueue

# How often a queue that a stream used just before is tried again, in seconds.
_PERIOD = 0.05


async def removed(
    broker: BrokerUnderTest, transport: EventTransport, name: str, *, discard: bool = False
) -> int:
    """Remove the queue of a listener; return what the transport returned."""
    return await transport.remove_listener_queue(
        broker.service_name, name, broker.api_name, discard=discard
    )


@pytest.fixture
def removing_transport(transport_class: type[EventTransport]) -> None:
    """Skips the case where the transport removes no queues."""
    if transport_class.remove_listener_queue is EventTransport.remove_listener_queue:
        pytest.skip("The transport cannot remove the queue of a listener.")


@pytest.mark.asyncio
class TestListenerQueues:
    async def test_the_queues_of_a_service_are_listed_as_far_as_the_broker_tells(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        for name in ("second", "first"):
            await transport.declare(broker.subscription(name), timeout=broker.patience)
        other = broker.subscription(service_name=f"{broker.service_name}-other")
        await transport.declare(other, timeout=broker.patience)
        await broker.send(transport, "hello")
        await broker.put(transport, broker.subscription("second"), "hello")

        queues = await transport.listener_queues(broker.service_name)

        if queues is not None:
            assert queues == [
                ListenerQueue(listener_name=name, api_name=broker.api_name, events=events)
                for name, events in (("first", 1), ("second", 2))
            ]

    async def test_a_queue_that_is_removed_gets_no_more_events(
        self, broker: BrokerUnderTest, removing_transport: None
    ) -> None:
        transport = await broker.open()
        for name in ("kept", "old"):
            await transport.declare(broker.subscription(name), timeout=broker.patience)

        assert await removed(broker, transport, "old") == 0

        await broker.send(transport, "hello")
        for name, expected in (("kept", ["hello"]), ("old", [])):
            stream = await transport.subscribe(broker.subscription(name))
            assert await broker.texts_before_end(transport, stream) == expected

    async def test_a_queue_with_events_is_removed_only_where_they_may_be_lost(
        self, broker: BrokerUnderTest, removing_transport: None
    ) -> None:
        transport = await broker.open()
        await transport.declare(broker.subscription("old"), timeout=broker.patience)
        await broker.send(transport, "a", "b")

        with pytest.raises(ListenerQueueNotEmpty) as caught:
            await removed(broker, transport, "old")
        assert caught.value.events == 2

        assert await removed(broker, transport, "old", discard=True) == 2
        with pytest.raises(NotDeclared):
            await removed(broker, transport, "old")

    async def test_a_queue_is_not_removed_while_a_worker_uses_it(
        self, broker: BrokerUnderTest, removing_transport: None
    ) -> None:
        transport, another = await broker.open(), await broker.open()
        stream = await transport.subscribe(broker.subscription("old"))

        with pytest.raises(ListenerInUse):
            await removed(broker, another, "old", discard=True)

        await stream.aclose()
        async with asyncio.timeout(broker.patience):
            while True:
                try:
                    assert await removed(broker, another, "old") == 0
                except ListenerInUse:  # the broker takes a moment to notice
                    await asyncio.sleep(_PERIOD)
                else:
                    return
