"""Events that fail: retried, deferred, or dead-lettered with the failure."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from lightbus.testing.conformance.broker import DELAY, BrokerUnderTest, text_of, texts_of

# Clocks and timers differ by a little.
TOLERANCE = 0.05


@pytest.mark.asyncio
class TestFailing:
    async def test_an_event_retried_at_once_is_delivered_as_the_next_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")

        for attempt in range(1, 5):
            delivery = await broker.receive(stream)
            assert (delivery.attempt, delivery.redeliveries) == (attempt, attempt - 1)
            await delivery.retry(after=0)

    async def test_a_retried_event_is_delivered_after_its_delay_and_others_do_not_wait(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        loop = asyncio.get_running_loop()
        await broker.send(transport, "fails", "other")
        delivery = await broker.receive(stream)
        retried_at = loop.time()
        await delivery.retry(after=DELAY)

        other, again = await broker.receive_many(stream, 2)

        assert texts_of([other, again]) == ["other", "fails"]
        assert loop.time() - retried_at >= DELAY - TOLERANCE
        assert (again.attempt, again.redeliveries) == (2, 0)
        assert again.message == delivery.message

    async def test_an_event_that_was_sent_later_may_be_delivered_during_the_delay(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "fails")
        await (await broker.receive(stream)).retry(after=60.0)

        await broker.send(transport, "later")

        assert text_of(await broker.receive(stream)) == "later"

    async def test_attempts_survive_the_transport(self, broker: BrokerUnderTest) -> None:
        await (await broker.open()).declare(broker.subscription(), timeout=broker.patience)
        await broker.send(await broker.open(), "hello")
        for attempt, after in ((1, DELAY), (2, 0), (3, DELAY), (4, 0)):
            transport = await broker.open()
            stream = await transport.subscribe(broker.subscription())
            delivery = await broker.receive(stream)
            assert delivery.attempt == attempt
            # Otherwise, this stream would receive the event again.
            await stream.stop()
            await delivery.retry(after=after)
            await transport.close()

    async def test_each_later_attempt_has_the_time_of_the_first_failure(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        first = await broker.receive(stream)
        assert first.first_failed_at is None
        before = datetime.now(UTC)
        await first.retry(after=DELAY)
        after = datetime.now(UTC)

        second = await broker.receive(stream)
        assert second.first_failed_at is not None
        assert before <= second.first_failed_at <= after
        await second.retry(after=DELAY, counts=False)
        third = await broker.receive(stream)
        await third.retry(after=DELAY)

        assert (await broker.receive(stream)).first_failed_at == second.first_failed_at

    async def test_a_retry_that_does_not_count_keeps_the_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        await (await broker.receive(stream)).retry(after=0)
        returned = await broker.receive(stream)
        assert (returned.attempt, returned.redeliveries) == (2, 1)

        await returned.retry(after=DELAY, counts=False)

        deferred = await broker.receive(stream)
        assert (deferred.attempt, deferred.redeliveries) == (2, 0)

    async def test_a_retried_event_is_delivered_only_to_the_listener_that_failed(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        failing = await transport.subscribe(broker.subscription("failing"))
        other = await transport.subscribe(broker.subscription("other"))
        await broker.send(transport, "hello")
        await (await broker.receive(failing)).retry(after=0)
        await (await broker.receive(failing)).retry(after=DELAY)
        assert (await broker.receive(failing)).attempt == 3

        assert await broker.texts_before_end(transport, other) == ["hello"]

    async def test_a_delay_that_the_subscription_does_not_have_is_refused_and_settles_nothing(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        delivery = await broker.receive(stream)

        with pytest.raises(ValueError, match=r"12\.5"):
            await delivery.retry(after=12.5)
        with pytest.raises(ValueError, match=r"12\.5"):
            await delivery.retry(after=12.5, counts=False)

        await delivery.retry(after=0)
        assert text_of(await broker.receive(stream)) == "hello"
