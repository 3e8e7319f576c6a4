"""What it means to look at events as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from lightbus.exceptions import SendRefused, TransportRefused
from lightbus.message import EventMessage
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.contract import EventTransport


@pytest_asyncio.fixture
async def tailed_transport(broker: BrokerUnderTest) -> EventTransport:
    """One that shows events, or the case does not apply."""
    found = await broker.open()
    try:
        await (await found.tail(broker.api_name)).aclose()
    except TransportRefused as error:
        pytest.skip(str(error))
    return found


async def next_texts(
    broker: BrokerUnderTest, events: AsyncGenerator[EventMessage], count: int
) -> list[str]:
    async with asyncio.timeout(broker.patience):
        return [(await anext(events)).kwargs["text"] for _ in range(count)]


@pytest.mark.asyncio
class TestTailing:
    async def test_events_are_seen_as_they_come_wanted_or_not(
        self, broker: BrokerUnderTest, tailed_transport: EventTransport
    ) -> None:
        transport = tailed_transport
        await broker.send(transport, "before")
        async with contextlib.aclosing(await transport.tail(broker.api_name)) as events:
            for text in "abc":
                await broker.send(transport, text)
            assert await next_texts(broker, events, 3) == ["a", "b", "c"]
            await broker.send(await broker.open(), "of another")
            assert await next_texts(broker, events, 1) == ["of another"]

    async def test_every_field_of_an_event_is_seen(
        self, broker: BrokerUnderTest, tailed_transport: EventTransport
    ) -> None:
        transport = tailed_transport
        sent = broker.message("hello")
        async with contextlib.aclosing(await transport.tail(broker.api_name)) as events:
            await transport.send(sent, timeout=broker.patience)
            async with asyncio.timeout(broker.patience):
                assert await anext(events) == sent

    async def test_a_subscription_gets_what_is_seen_and_two_see_the_same(
        self, broker: BrokerUnderTest, tailed_transport: EventTransport
    ) -> None:
        transport = tailed_transport
        stream = await transport.subscribe(broker.subscription())
        async with (
            contextlib.aclosing(await transport.tail(broker.api_name)) as first,
            contextlib.aclosing(await transport.tail(broker.api_name)) as second,
        ):
            await broker.send(transport, "a")
            assert await next_texts(broker, first, 1) == ["a"]
            assert await next_texts(broker, second, 1) == ["a"]
        assert await broker.texts_before_end(transport, stream) == ["a"]

    async def test_events_of_another_api_are_not_seen(
        self, broker: BrokerUnderTest, tailed_transport: EventTransport
    ) -> None:
        transport = tailed_transport
        other = f"{broker.api_name}.v2"
        async with contextlib.aclosing(await transport.tail(other)) as events:
            await broker.send(transport, "a")
            await transport.send(broker.message("b", api_name=other), timeout=broker.patience)
            assert await next_texts(broker, events, 1) == ["b"]

    async def test_one_that_is_closed_leaves_no_wish_for_events_behind(
        self, broker: BrokerUnderTest, tailed_transport: EventTransport
    ) -> None:
        transport = tailed_transport
        events = await transport.tail(broker.api_name)
        await broker.send(transport, "a")
        assert await next_texts(broker, events, 1) == ["a"]
        await events.aclose()
        with pytest.raises(SendRefused):
            await transport.send(
                broker.message("b"), timeout=broker.patience, require_listeners=True
            )
