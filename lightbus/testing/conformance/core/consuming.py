"""Which listeners receive which events, and in what order."""

from __future__ import annotations

import asyncio

import pytest

from lightbus.testing.conformance.broker import NAMES, BrokerUnderTest, text_of, texts_of
from lightbus.transport.contract import DeliveryStream

# The number of events for a stream that may prefetch some, and how many it must leave to others.
MANY = 300
LEFT_TO_OTHERS = 100

# How soon a waiting listener must react, in seconds, on a slow machine.
SOON = 1.0


@pytest.mark.asyncio
class TestConsuming:
    async def test_each_listener_of_each_service_receives_each_event(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        streams = [
            await transport.subscribe(broker.subscription(listener, service_name=service))
            for listener in ("one", "two")
            for service in (f"{broker.service_name}-a", f"{broker.service_name}-b")
        ]

        await broker.send(transport, "hello")

        for stream in streams:
            assert await broker.texts_before_end(transport, stream) == ["hello"]

    async def test_workers_of_one_subscription_share_its_events(
        self, broker: BrokerUnderTest
    ) -> None:
        came: list[str] = []
        all_came = asyncio.Event()

        async def work(stream: DeliveryStream) -> None:
            async for delivery in stream:
                came.append(text_of(delivery))
                await delivery.ack()
                if len(came) == MANY:
                    all_came.set()

        workers = []
        for _ in range(3):
            stream = await (await broker.open()).subscribe(broker.subscription())
            workers.append(asyncio.create_task(work(stream)))
        sender = await broker.open()
        texts = [str(number) for number in range(MANY)]
        await asyncio.gather(*(broker.send(sender, text) for text in texts))
        async with asyncio.timeout(broker.patience):
            await all_came.wait()
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)

        assert sorted(came) == sorted(texts)

    async def test_a_listener_receives_the_events_that_it_subscribed_to(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription(events=("happened", "ended")))
        for event_name, api_name in (
            ("happened", f"{broker.api_name}.longer"),
            ("happened", broker.api_name.partition(".")[0]),
            ("ignored", broker.api_name),
            ("ended", broker.api_name),
        ):
            message = broker.message(api_name, event_name=event_name, api_name=api_name)
            await transport.send(message, timeout=broker.patience)

        assert await broker.texts_before_end(transport, stream) == [broker.api_name]

    async def test_events_can_be_added_to_a_subscription(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        await transport.declare(broker.subscription(), timeout=broker.patience)
        await broker.send(transport, "before")
        stream = await transport.subscribe(broker.subscription(events=("happened", "ended")))

        ended = broker.message("ended", event_name="ended")
        await transport.send(ended, timeout=broker.patience)

        assert texts_of(await broker.receive_many(stream, 2)) == ["before", "ended"]

    async def test_a_listener_receives_the_events_that_were_sent_while_it_was_away(
        self, broker: BrokerUnderTest
    ) -> None:
        sender = await broker.open()
        await sender.declare(broker.subscription(), timeout=broker.patience)
        texts = [str(number) for number in range(MANY)]
        await broker.send(sender, *texts)

        receiver = await broker.open()
        stream = await receiver.subscribe(broker.subscription())

        assert await broker.texts_before_end(receiver, stream) == texts

    async def test_one_consumer_receives_events_in_the_order_they_were_sent(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        texts = [str(number) for number in range(100)]

        sending = asyncio.create_task(broker.send(transport, *texts))
        came = []
        for _ in texts:
            delivery = await broker.receive(stream)
            came.append(text_of(delivery))
            await delivery.ack()
        await sending

        assert came == texts

    async def test_consecutive_consumers_receive_events_in_the_order_they_were_sent(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        await transport.declare(broker.subscription(), timeout=broker.patience)
        texts = [str(number) for number in range(120)]
        await broker.send(transport, *texts)

        came = []
        for _ in range(4):
            stream = await transport.subscribe(broker.subscription())
            for _ in range(30):
                delivery = await broker.receive(stream)
                came.append(text_of(delivery))
                await delivery.ack()
            await stream.aclose()

        assert came == texts

    async def test_a_first_delivery_is_attempt_1_without_redeliveries(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")

        delivery = await broker.receive(stream)

        assert (delivery.attempt, delivery.redeliveries) == (1, 0)

    async def test_tasks_that_wait_at_once_each_receive_an_event(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription(concurrency=5))
        waiting = [asyncio.create_task(broker.receive(stream)) for _ in range(5)]

        await broker.send(transport, *"abcde")

        assert sorted(texts_of(await asyncio.gather(*waiting))) == list("abcde")

    async def test_a_cancelled_receiver_loses_no_event(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        texts = [str(number) for number in range(20)]
        sending = asyncio.create_task(broker.send(transport, *texts))

        came: list[str] = []
        async with asyncio.timeout(broker.patience):
            while len(came) < len(texts):
                try:
                    async with asyncio.timeout(0.002):
                        delivery = await anext(stream)
                except TimeoutError:
                    continue
                came.append(text_of(delivery))
                await delivery.ack()
        await sending

        assert sorted(came) == sorted(texts)

    async def test_a_listener_holds_few_events_ahead(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        await transport.declare(broker.subscription(), timeout=broker.patience)
        await asyncio.gather(*(broker.send(transport, str(number)) for number in range(MANY)))
        hoarding = await transport.subscribe(broker.subscription())
        await broker.receive(hoarding)

        other = await (await broker.open()).subscribe(broker.subscription())

        for _ in range(LEFT_TO_OTHERS):
            await (await broker.receive(other)).ack()

    async def test_a_waiting_listener_reacts_soon(self, broker: BrokerUnderTest) -> None:
        sender, receiver = await broker.open(), await broker.open()
        stream = await receiver.subscribe(broker.subscription())
        loop = asyncio.get_running_loop()
        for _ in range(5):
            taking = asyncio.create_task(broker.receive(stream))
            # Long enough for the stream to wait, and for a poll with a backoff to slow down.
            await asyncio.sleep(0.2)
            sent_at = loop.time()
            await broker.send(sender, "hello")
            await (await taking).ack()
            assert loop.time() - sent_at < SOON

    @pytest.mark.parametrize("name", list(NAMES.values()), ids=list(NAMES))
    async def test_names_may_hold_each_character_that_lightbus_allows(
        self, broker: BrokerUnderTest, name: str
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription(name))
        await broker.send(transport, "hello")

        assert text_of(await broker.receive(stream)) == "hello"
