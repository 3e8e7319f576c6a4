"""`FindEvent`: where an event is."""

from __future__ import annotations

import pytest

from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import FindEvent
from lightbus.transport.records import LocationState


@pytest.mark.asyncio
class TestFindEvent:
    async def test_an_event_is_found_in_each_queue_by_its_id(self, broker: BrokerUnderTest) -> None:
        transport, finding = await broker.open_with(FindEvent)
        for name in ("first", "second"):
            await transport.declare(broker.subscription(name), timeout=broker.patience)
        message = broker.message("hello")
        await transport.send(message, timeout=broker.patience)

        found = await finding.find(message.id)

        assert sorted(location.listener_name for location in found) == ["first", "second"]
        for location in found:
            assert location.message == message
            assert location.service_name == broker.service_name
            assert (location.state, location.attempt) == (LocationState.WAITING, 1)

    async def test_an_event_is_found_by_the_start_of_its_id_and_no_other(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, finding = await broker.open_with(FindEvent)
        await transport.declare(broker.subscription(), timeout=broker.patience)
        message, other = broker.message("hello"), broker.message("other")
        for sent in (message, other):
            await transport.send(sent, timeout=broker.patience)

        assert [one.message for one in await finding.find(message.id[:-1])] == [message]
        assert await finding.find("no such id") == []

    async def test_a_location_says_what_happens_to_the_event(self, broker: BrokerUnderTest) -> None:
        transport, finding = await broker.open_with(FindEvent)
        stream = await transport.subscribe(broker.subscription())
        message = broker.message("hello")
        await transport.send(message, timeout=broker.patience)
        delivery = await broker.receive(stream)
        (location,) = await finding.find(message.id)
        assert location.state is LocationState.IN_FLIGHT

        await delivery.retry(after=60.0)

        (location,) = await finding.find(message.id)
        assert (location.state, location.attempt) == (LocationState.DELAYED, 2)
        assert location.until is not None
