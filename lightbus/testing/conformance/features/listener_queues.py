"""`ListenerQueues`: the queues of listeners that are gone."""

from __future__ import annotations

import asyncio

import pytest

from lightbus.exceptions import NotDeclared, QueueInUse
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import ListenerQueues
from lightbus.transport.records import ListenerQueue

# How often a queue that a stream used just before is tried again, in seconds.
_PERIOD = 0.05


@pytest.mark.asyncio
class TestListenerQueues:
    async def test_the_queues_of_a_service_are_listed_if_the_broker_reports_them(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, managing = await broker.open_with(ListenerQueues)
        for name in ("second", "first"):
            await transport.declare(broker.subscription(name), timeout=broker.patience)
        other = broker.subscription(service_name=f"{broker.service_name}-other")
        await transport.declare(other, timeout=broker.patience)
        await broker.send(transport, "hello")
        await broker.send_to(transport, broker.subscription("second"), "hello")

        queues = await managing.listener_queues(broker.service_name)

        if queues is not None:
            assert queues == [
                ListenerQueue(listener_name=name, api_name=broker.api_name, events=events)
                for name, events in (("first", 1), ("second", 2))
            ]

    async def test_a_removed_queue_receives_no_more_events(self, broker: BrokerUnderTest) -> None:
        transport, managing = await broker.open_with(ListenerQueues)
        for name in ("kept", "old"):
            await transport.declare(broker.subscription(name), timeout=broker.patience)

        assert await managing.remove_listener_queue(broker.subscription("old")) == 0

        await broker.send(transport, "hello")
        for name, expected in (("kept", ["hello"]), ("old", [])):
            stream = await transport.subscribe(broker.subscription(name))
            assert await broker.texts_before_end(transport, stream) == expected

    async def test_a_queue_with_events_is_removed_only_with_discard(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, managing = await broker.open_with(ListenerQueues)
        await transport.declare(broker.subscription("old"), timeout=broker.patience)
        await broker.send(transport, "a", "b")

        with pytest.raises(QueueInUse) as caught:
            await managing.remove_listener_queue(broker.subscription("old"))
        assert caught.value.events == 2

        assert await managing.remove_listener_queue(broker.subscription("old"), discard=True) == 2
        with pytest.raises(NotDeclared):
            await managing.remove_listener_queue(broker.subscription("old"))

    async def test_a_queue_is_not_removed_while_a_worker_consumes_from_it(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        _, managing = await broker.open_with(ListenerQueues)
        stream = await transport.subscribe(broker.subscription("old"))

        with pytest.raises(QueueInUse):
            await managing.remove_listener_queue(broker.subscription("old"), discard=True)

        await stream.aclose()
        async with asyncio.timeout(broker.patience):
            while True:
                try:
                    assert await managing.remove_listener_queue(broker.subscription("old")) == 0
                except QueueInUse:  # the broker takes a moment to notice
                    await asyncio.sleep(_PERIOD)
                else:
                    return
