"""Opening, stopping and closing."""

from __future__ import annotations

import asyncio

import pytest

from lightbus.exceptions import TransportClosed, TransportError
from lightbus.testing.conformance.broker import BrokerUnderTest, text_of, texts_of


@pytest.mark.asyncio
class TestLifecycle:
    async def test_a_transport_that_was_never_opened_can_be_closed(
        self, broker: BrokerUnderTest
    ) -> None:
        async with asyncio.timeout(broker.patience):
            await broker.make().close()

    async def test_a_transport_can_be_closed_ten_times_at_once_and_once_more(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        await transport.subscribe(broker.subscription())

        async with asyncio.timeout(broker.patience):
            await asyncio.gather(*(transport.close() for _ in range(10)))
            await transport.close()

    async def test_a_closed_transport_sends_nothing_and_says_so(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, other = await broker.open(), await broker.open()
        stream = await other.subscribe(broker.subscription())
        await broker.send(transport, "before")
        await transport.close()

        with pytest.raises(TransportClosed):
            await broker.send(transport, "after")

        assert await broker.texts_before_end(other, stream) == ["before"]

    async def test_every_method_of_a_closed_transport_says_that_it_is_closed(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        subscription, message = broker.subscription(), broker.message()
        await transport.declare(subscription, timeout=broker.patience)
        await transport.close()

        for call in (
            transport.declare(subscription, timeout=broker.patience),
            transport.subscribe(subscription),
            transport.send(message, timeout=broker.patience),
            transport.send(message, to=subscription, timeout=broker.patience),
        ):
            with pytest.raises(TransportClosed):
                async with asyncio.timeout(broker.patience):
                    await call

    async def test_closing_loses_no_event_in_flight(self, broker: BrokerUnderTest) -> None:
        transport, other = await broker.open(), await broker.open()
        stream = await other.subscribe(broker.subscription())
        sends = [asyncio.create_task(broker.send(transport, str(n))) for n in range(50)]
        await asyncio.sleep(0)
        await transport.close()

        results = await asyncio.gather(*sends, return_exceptions=True)

        confirmed = {str(n) for n, result in enumerate(results) if result is None}
        assert all(result is None or isinstance(result, TransportError) for result in results)
        assert confirmed <= set(await broker.texts_before_end(other, stream))

    async def test_open_and_declare_can_be_repeated(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        await transport.open(timeout=broker.patience)
        await transport.declare(broker.subscription(), timeout=broker.patience)
        await broker.send(transport, "hello")

        await transport.declare(broker.subscription(), timeout=broker.patience)

        stream = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, stream) == ["hello"]

    async def test_many_declare_one_subscription_at_once(self, broker: BrokerUnderTest) -> None:
        transports = [await broker.open() for _ in range(5)]

        await asyncio.gather(
            *(t.declare(broker.subscription(), timeout=broker.patience) for t in transports)
        )

        stream = await transports[0].subscribe(broker.subscription())
        await broker.send(transports[1], "hello")
        assert await broker.texts_before_end(transports[2], stream) == ["hello"]

    async def test_a_stopped_stream_ends_for_tasks_that_wait_and_for_later_ones(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        waiting = [asyncio.create_task(anext(stream, None)) for _ in range(3)]
        await asyncio.sleep(0.05)

        async with asyncio.timeout(broker.patience):
            await stream.stop()
            await stream.stop()
            ended = await asyncio.gather(*waiting)

        assert ended == [None, None, None]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_a_stopped_stream_requeues_the_deliveries_that_no_task_received(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        await transport.declare(broker.subscription(), timeout=broker.patience)
        await broker.send(transport, "a", "b", "c")
        stream = await transport.subscribe(broker.subscription())
        received = await broker.receive(stream)

        await stream.stop()

        other = await (await broker.open()).subscribe(broker.subscription(concurrency=2))
        assert texts_of(await broker.receive_many(other, 2)) == ["b", "c"]
        await received.ack()

    async def test_a_stream_can_be_closed_many_times(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        await broker.receive(stream)

        async with asyncio.timeout(broker.patience):
            await asyncio.gather(*(stream.aclose() for _ in range(10)))
            await stream.aclose()

        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == ["hello"]

    async def test_a_closed_transport_requeues_unsettled_deliveries(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, other = await broker.open(), await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(other, "a", "b")
        await broker.receive(stream)

        await transport.close()

        again = await other.subscribe(broker.subscription(concurrency=2))
        assert sorted(texts_of(await broker.receive_many(again, 2))) == ["a", "b"]

    async def test_a_settlement_is_stored_although_the_transport_is_closed_at_once(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription(concurrency=50))
        await broker.send(transport, *(str(number) for number in range(50)))
        deliveries = await broker.receive_many(stream, 50)
        for delivery in deliveries:
            await delivery.ack()

        await transport.close()

        other = await broker.open()
        stream = await other.subscribe(broker.subscription())
        assert await broker.texts_before_end(other, stream) == []

    async def test_closing_one_stream_does_not_disturb_another(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        closing = await transport.subscribe(broker.subscription("closing"))
        staying = await transport.subscribe(broker.subscription("staying"))
        await closing.aclose()

        await broker.send(transport, "hello")

        assert text_of(await broker.receive(staying)) == "hello"
