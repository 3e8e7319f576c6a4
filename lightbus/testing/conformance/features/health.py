"""`HealthCheck`: whether a transport works."""

from __future__ import annotations

import pytest

from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import HealthCheck


@pytest.mark.asyncio
class TestHealthCheck:
    async def test_a_transport_is_healthy_while_it_works_and_not_when_it_is_closed(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, checked = await broker.open_with(HealthCheck)
        assert await checked.check_health(timeout=broker.patience) == []
        await transport.subscribe(broker.subscription())
        assert await checked.check_health(timeout=broker.patience) == []

        await transport.close()

        assert await checked.check_health(timeout=broker.patience)
