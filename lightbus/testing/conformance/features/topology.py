"""`ManagedTopology`: the objects at the broker."""

from __future__ import annotations

import asyncio

import pytest

from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import ManagedTopology


@pytest.mark.asyncio
class TestManagedTopology:
    async def test_what_was_declared_matches_and_a_migration_keeps_its_events(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, managed = await broker.open_with(ManagedTopology)
        subscription = broker.subscription()
        needed = [subscription], {subscription.api_name: subscription.events}
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, "a", "b")

        compared = await managed.topology(*needed)
        async with asyncio.timeout(broker.patience):
            await managed.migrate(*needed, on_progress=lambda _: None)

        assert [found.name for found in compared if not found.state.is_good] == []
        stream = await transport.subscribe(subscription)
        assert await broker.texts_before_end(transport, stream) == ["a", "b"]
