"""Deliveries that are settled once, twice, late or never."""

from __future__ import annotations

import pytest

from lightbus.testing.conformance.broker import DELAY, BrokerUnderTest, text_of
from lightbus.transport.contract import Delivery

SECOND_SETTLEMENTS = ("ack", "requeue", "retry", "retry later", "defer", "dead_letter")


async def settle(delivery: Delivery, how: str, broker: BrokerUnderTest) -> None:
    """Settle `delivery` by one of its methods."""
    match how:
        case "ack":
            await delivery.ack()
        case "requeue":
            await delivery.requeue()
        case "retry":
            await delivery.retry(after=0)
        case "retry later":
            await delivery.retry(after=DELAY)
        case "defer":
            await delivery.retry(after=DELAY, counts=False)
        case "dead_letter":
            await delivery.dead_letter(broker.failure())


@pytest.mark.asyncio
class TestSettling:
    async def test_an_acknowledged_event_is_not_redelivered(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "a", "b")
        for delivery in await broker.receive_many(stream, 2):
            await delivery.ack()
        await transport.close()

        again = await broker.open()
        stream = await again.subscribe(broker.subscription())

        assert await broker.texts_before_end(again, stream) == []

    @pytest.mark.parametrize("how", SECOND_SETTLEMENTS)
    async def test_a_second_settlement_does_nothing(
        self, broker: BrokerUnderTest, how: str
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        delivery = await broker.receive(stream)
        await delivery.ack()

        await settle(delivery, how, broker)

        await stream.aclose()
        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == []
        assert await broker.dead_letters(transport) == []

    async def test_an_ack_does_not_undo_what_was_settled_before(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        delivery = await broker.receive(stream)
        await delivery.retry(after=0)

        await delivery.ack()

        assert text_of(await broker.receive(stream)) == "hello"

    async def test_deliveries_are_settled_independently_of_their_order(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription(concurrency=3))
        await broker.send(transport, "a", "b", "c")
        _, second, _ = await broker.receive_many(stream, 3)
        await second.ack()
        await stream.aclose()

        again = await transport.subscribe(broker.subscription())

        assert sorted(await broker.texts_before_end(transport, again)) == ["a", "c"]

    async def test_a_requeued_event_is_redelivered_unchanged(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "a", "b", "c")
        requeued = await broker.receive(stream)

        await requeued.requeue()

        came = {}
        for _ in range(3):
            delivery = await broker.receive(stream)
            came[text_of(delivery)] = delivery.message
            await delivery.ack()
        assert sorted(came) == ["a", "b", "c"]
        assert came["a"] == requeued.message
        assert await broker.texts_before_end(transport, stream) == []

    async def test_an_unsettled_event_is_redelivered_and_counted(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        await broker.receive(stream)
        await stream.aclose()

        delivery = await broker.receive(await transport.subscribe(broker.subscription()))

        assert (text_of(delivery), delivery.attempt, delivery.redeliveries) == ("hello", 2, 1)

    @pytest.mark.parametrize("how", SECOND_SETTLEMENTS)
    async def test_a_settlement_after_the_stream_was_closed_does_nothing(
        self, broker: BrokerUnderTest, how: str
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        late = await broker.receive(stream)
        await stream.aclose()

        await settle(late, how, broker)

        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == ["hello"]

    async def test_a_late_settlement_does_not_settle_the_next_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        first_try = await broker.receive(stream)
        await first_try.retry(after=0)
        second_try = await broker.receive(stream)

        await first_try.ack()
        await second_try.retry(after=0)

        assert (await broker.receive(stream)).attempt == 3

    async def test_a_received_delivery_can_be_settled_after_the_stream_stopped(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "a", "b")
        delivery = await broker.receive(stream)
        await stream.stop()

        await delivery.ack()
        await stream.aclose()

        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == ["b"]
