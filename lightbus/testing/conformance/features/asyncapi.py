"""`AsyncAPISource`: the broker in an AsyncAPI document."""

from __future__ import annotations

import json

import pytest

from lightbus.config import TransportSettings
from lightbus.encoding.settings import convert_settings
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import AsyncAPISource, lists


@pytest.mark.asyncio
class TestAsyncAPISource:
    async def test_the_description_of_an_event_is_json_with_a_server(
        self, broker: BrokerUnderTest, event_transport: TransportSettings
    ) -> None:
        broker.need(AsyncAPISource)
        ((name, settings),) = event_transport.items()
        transport_class = broker.transport_class
        converted = convert_settings(
            settings or {}, transport_class.Settings, source="suite", path=name
        )
        assert lists(transport_class, AsyncAPISource)

        parts = transport_class.asyncapi(converted, broker.api_name, "happened")

        assert parts.server["host"]
        assert parts.server["protocol"]
        json.dumps([parts.server, parts.channel])
