"""`QueueStats`: how many events a queue has."""

from __future__ import annotations

import pytest

from lightbus.testing.conformance.broker import DELAY, BrokerUnderTest
from lightbus.transport.features import QueueStats


@pytest.mark.asyncio
class TestQueueStats:
    async def test_waiting_events_are_counted(self, broker: BrokerUnderTest) -> None:
        transport, counting = await broker.open_with(QueueStats)
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        assert (await counting.stats(subscription)).waiting == 0

        await broker.send(transport, *"abc")

        stats = await counting.stats(subscription)
        assert stats.waiting == 3
        assert stats.delayed in (0, None)
        assert stats.in_flight in (0, None)

    async def test_events_are_counted_before_the_send_returns(
        self, broker: BrokerUnderTest
    ) -> None:
        sender, counting = await broker.open_with(QueueStats)
        subscription = broker.subscription()
        await sender.declare(subscription, timeout=broker.patience)

        for count in range(1, 6):
            await broker.send(sender, str(count))
            assert (await counting.stats(subscription)).waiting == count

    async def test_delayed_events_are_counted_apart(self, broker: BrokerUnderTest) -> None:
        transport, counting = await broker.open_with(QueueStats)
        subscription = broker.subscription()
        stream = await transport.subscribe(subscription)
        await broker.send(transport, "fails")
        await (await broker.receive(stream)).retry(after=60.0)

        assert (await counting.stats(subscription)).delayed in (1, None)

    async def test_a_settled_delivery_is_not_counted(self, broker: BrokerUnderTest) -> None:
        transport, counting = await broker.open_with(QueueStats)
        subscription = broker.subscription()
        stream = await transport.subscribe(subscription)
        await broker.send(transport, "hello")
        delivery = await broker.receive(stream)
        await delivery.ack()

        await delivery.retry(after=DELAY)

        await stream.aclose()
        assert (await counting.stats(subscription)).total == 0
