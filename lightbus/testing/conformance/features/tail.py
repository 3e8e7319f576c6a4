"""`Tail`: events while they are sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from lightbus.exceptions import SendRefused
from lightbus.message import EventMessage
from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.transport.features import Tail


async def next_texts(
    broker: BrokerUnderTest, events: AsyncGenerator[EventMessage], count: int
) -> list[str]:
    async with asyncio.timeout(broker.patience):
        return [(await anext(events)).kwargs["text"] for _ in range(count)]


@pytest.mark.asyncio
class TestTail:
    async def test_events_are_shown_while_they_are_sent_with_and_without_subscriptions(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, tailing = await broker.open_with(Tail)
        await broker.send(transport, "before")
        async with contextlib.aclosing(await tailing.tail(broker.api_name)) as events:
            for text in "abc":
                await broker.send(transport, text)
            assert await next_texts(broker, events, 3) == ["a", "b", "c"]
            await broker.send(await broker.open(), "of another")
            assert await next_texts(broker, events, 1) == ["of another"]

    async def test_every_field_of_an_event_is_shown(self, broker: BrokerUnderTest) -> None:
        transport, tailing = await broker.open_with(Tail)
        sent = broker.message("hello")
        async with contextlib.aclosing(await tailing.tail(broker.api_name)) as events:
            await transport.send(sent, timeout=broker.patience)
            async with asyncio.timeout(broker.patience):
                assert await anext(events) == sent

    async def test_subscriptions_and_several_readers_each_get_an_event(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, tailing = await broker.open_with(Tail)
        stream = await transport.subscribe(broker.subscription())
        async with (
            contextlib.aclosing(await tailing.tail(broker.api_name)) as first,
            contextlib.aclosing(await tailing.tail(broker.api_name)) as second,
        ):
            await broker.send(transport, "a")
            assert await next_texts(broker, first, 1) == ["a"]
            assert await next_texts(broker, second, 1) == ["a"]
        assert await broker.texts_before_end(transport, stream) == ["a"]

    async def test_events_of_another_api_are_not_shown(self, broker: BrokerUnderTest) -> None:
        transport, tailing = await broker.open_with(Tail)
        other = f"{broker.api_name}.v2"
        async with contextlib.aclosing(await tailing.tail(other)) as events:
            await broker.send(transport, "a")
            await transport.send(broker.message("b", api_name=other), timeout=broker.patience)
            assert await next_texts(broker, events, 1) == ["b"]

    async def test_a_closed_tail_receives_no_more_events(self, broker: BrokerUnderTest) -> None:
        transport, tailing = await broker.open_with(Tail)
        events = await tailing.tail(broker.api_name)
        await broker.send(transport, "a")
        assert await next_texts(broker, events, 1) == ["a"]
        await events.aclose()
        with pytest.raises(SendRefused):
            await transport.send(
                broker.message("b"), timeout=broker.patience, require_listeners=True
            )
