"""What it means that an event was sent."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest

from lightbus.exceptions import SendRefused, TransportError
from lightbus.testing.conformance.broker import BrokerUnderTest, text_of, texts_of

# Some brokers refuse messages above 16 MiB.
LARGE = 1024 * 1024
TOO_LARGE_FOR_SOME = 20 * LARGE

BODIES = {
    "unicode": json.dumps({"text": "für 🐰 \u0000 \u2028"}, ensure_ascii=False).encode(),
    "a number beyond 64 bits": b'{"text": 123456789012345678901234567890}',
    "no JSON": b"\x00\xff\xfe not json",
    "nothing": b"",
    "many bytes": b'{"text": "' + b"x" * LARGE + b'"}',
}


@pytest.mark.asyncio
class TestPublishing:
    async def test_a_sent_event_reaches_a_subscription(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())

        await broker.send(transport, "hello")

        assert text_of(await broker.receive(stream)) == "hello"

    async def test_an_event_without_subscriptions_is_not_an_error(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        await broker.send(transport, "for nobody")

        stream = await transport.subscribe(broker.subscription())

        assert await broker.texts_before_end(transport, stream) == []

    async def test_an_event_without_subscriptions_is_refused_if_listeners_are_required(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        unwanted, wanted = broker.message("unwanted", event_name="ended"), broker.message("wanted")

        with pytest.raises(SendRefused):
            await transport.send(wanted, timeout=broker.patience, require_listeners=True)
        stream = await transport.subscribe(broker.subscription())
        with pytest.raises(SendRefused):
            await transport.send(unwanted, timeout=broker.patience, require_listeners=True)
        await transport.send(wanted, timeout=broker.patience, require_listeners=True)

        assert await broker.texts_before_end(transport, stream) == ["wanted"]

    async def test_a_sent_event_outlives_the_sender(self, broker: BrokerUnderTest) -> None:
        sender = await broker.open()
        await sender.declare(broker.subscription(), timeout=broker.patience)
        await broker.send(sender, "hello")
        await sender.close()

        stream = await (await broker.open()).subscribe(broker.subscription())

        assert text_of(await broker.receive(stream)) == "hello"

    async def test_a_send_that_returned_has_stored_the_event(self, broker: BrokerUnderTest) -> None:
        sender = await broker.open()
        stream = await (await broker.open()).subscribe(broker.subscription())

        for text in "abcde":
            await broker.send(sender, text)
            assert text_of(await broker.receive(stream)) == text

    async def test_every_field_of_an_event_arrives(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        fired_at = datetime(2024, 2, 29, 12, 30, 59, 123456, timezone(timedelta(hours=9)))
        sent = attrs.evolve(
            broker.message("hello"),
            version=7,
            fired_at=fired_at.astimezone(UTC),
            id="my-id",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )

        await transport.send(sent, timeout=broker.patience)

        assert (await broker.receive(stream)).message == sent

    @pytest.mark.parametrize("body", list(BODIES.values()), ids=list(BODIES))
    async def test_a_body_arrives_as_it_was_sent(
        self, broker: BrokerUnderTest, body: bytes
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())

        await transport.send(broker.message(body=body), timeout=broker.patience)

        assert (await broker.receive(stream)).message.body == body

    async def test_an_event_that_is_too_large_is_refused_and_harms_no_other(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        large = broker.message(body=b"x" * TOO_LARGE_FOR_SOME)
        others = asyncio.gather(*(broker.send(transport, str(number)) for number in range(10)))

        try:
            await transport.send(large, timeout=broker.patience)
            was_taken = True
        except TransportError:
            was_taken = False
        await others

        deliveries = await broker.receive_many(stream, 10 + was_taken)
        bodies = [delivery.message.body for delivery in deliveries]
        assert (large.body in bodies) == was_taken
        assert {f'{{"text":"{number}"}}'.encode() for number in range(10)} <= set(bodies)

    async def test_many_events_sent_at_once_all_arrive_once(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        texts = [str(number) for number in range(300)]

        await asyncio.gather(*(broker.send(transport, text) for text in texts))

        assert sorted(await broker.texts_before_end(transport, stream)) == sorted(texts)

    async def test_several_transports_send_to_one_subscription(
        self, broker: BrokerUnderTest
    ) -> None:
        senders = [await broker.open() for _ in range(3)]
        stream = await senders[0].subscribe(broker.subscription())

        await asyncio.gather(
            *(broker.send(sender, f"{number}") for number, sender in enumerate(senders))
        )

        assert sorted(texts_of(await broker.receive_many(stream, 3))) == ["0", "1", "2"]

    async def test_a_send_that_was_cancelled_leaves_the_transport_usable(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        for number in range(20):
            sending = asyncio.create_task(broker.send(transport, f"cancelled {number}"))
            for _ in range(number % 5):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait({sending})

        await broker.send(transport, "whole")

        came = await broker.texts_before_end(transport, stream)
        assert [text for text in came if not text.startswith("cancelled")] == ["whole"]
        assert len(came) == len(set(came))

    async def test_an_event_for_one_queue_reaches_no_other_and_has_that_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription("one"))
        other = await transport.subscribe(broker.subscription("other"))

        await broker.send_to(transport, broker.subscription("one"), "moved", attempt=5)

        delivery = await broker.receive(stream)
        assert (text_of(delivery), delivery.attempt, delivery.redeliveries) == ("moved", 5, 0)
        assert await broker.texts_before_end(transport, other) == []
