"""Events that fail: retried, deferred, or dead-lettered with the failure."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import attrs
import pytest

from lightbus.names import LONGEST_NAME
from lightbus.testing.conformance.broker import DELAY, BrokerUnderTest, text_of, texts_of

# Clocks and timers differ by a little.
TOLERANCE = 0.05


@pytest.mark.asyncio
class TestFailing:
    async def test_a_retry_at_once_comes_back_as_the_next_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")

        for attempt in range(1, 5):
            delivery = await broker.take(stream)
            assert (delivery.attempt, delivery.returns) == (attempt, attempt - 1)
            await delivery.retry(after=0)

    async def test_a_retry_comes_back_after_its_delay_and_others_do_not_wait(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        loop = asyncio.get_running_loop()
        await broker.send(transport, "fails", "other")
        delivery = await broker.take(stream)
        retried_at = loop.time()
        await delivery.retry(after=DELAY)

        other, again = await broker.take_ones(stream, 2)

        assert texts_of([other, again]) == ["other", "fails"]
        assert loop.time() - retried_at >= DELAY - TOLERANCE
        assert (again.attempt, again.returns) == (2, 0)
        assert again.message == delivery.message

    async def test_an_event_that_was_sent_later_may_be_delivered_during_the_delay(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "fails")
        await (await broker.take(stream)).retry(after=60.0)

        await broker.send(transport, "later")

        assert text_of(await broker.take(stream)) == "later"
        assert (await transport.stats(broker.subscription())).delayed in (1, None)

    async def test_names_of_the_greatest_length_work_together(
        self, broker: BrokerUnderTest
    ) -> None:
        def longest(name: str) -> str:
            return name.ljust(LONGEST_NAME, "x")

        transport = await broker.open()
        subscription = broker.subscription(
            longest("listener"),
            service_name=longest(broker.service_name),
            api_name=longest(broker.api_name),
            events=[longest("happened")],
        )
        message = broker.message(
            "hello", api_name=subscription.api_name, event_name=longest("happened")
        )
        stream = await transport.subscribe(subscription)
        await transport.send(message, timeout=broker.patience)
        await (await broker.take(stream)).retry(after=DELAY)

        again = await broker.take(stream)
        await again.dead_letter(broker.failure())

        assert (again.message, again.attempt) == (message, 2)
        assert [one.message async for one in transport.dead_letters(subscription.service_name)] == [
            message
        ]

    async def test_attempts_survive_the_transport(self, broker: BrokerUnderTest) -> None:
        await (await broker.open()).declare(broker.subscription(), timeout=broker.patience)
        await broker.send(await broker.open(), "hello")
        for attempt, after in ((1, DELAY), (2, 0), (3, DELAY), (4, 0)):
            transport = await broker.open()
            stream = await transport.subscribe(broker.subscription())
            delivery = await broker.take(stream)
            assert delivery.attempt == attempt
            # So that it does not come to this one once more.
            await stream.stop()
            await delivery.retry(after=after)
            await transport.close()

    async def test_when_an_event_failed_first_is_known_at_every_later_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        first = await broker.take(stream)
        assert first.first_failed_at is None
        before = datetime.now(UTC)
        await first.retry(after=DELAY)
        after = datetime.now(UTC)

        second = await broker.take(stream)
        assert second.first_failed_at is not None
        assert before <= second.first_failed_at <= after
        await second.defer(after=DELAY)
        third = await broker.take(stream)
        await third.retry(after=DELAY)

        assert (await broker.take(stream)).first_failed_at == second.first_failed_at

    async def test_a_deferred_event_comes_back_as_the_same_attempt(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        await (await broker.take(stream)).retry(after=0)
        returned = await broker.take(stream)
        assert (returned.attempt, returned.returns) == (2, 1)

        await returned.defer(after=DELAY)

        deferred = await broker.take(stream)
        assert (deferred.attempt, deferred.returns) == (2, 0)

    async def test_only_the_listener_that_failed_tries_again(self, broker: BrokerUnderTest) -> None:
        transport = await broker.open()
        failing = await transport.subscribe(broker.subscription("failing"))
        other = await transport.subscribe(broker.subscription("other"))
        await broker.send(transport, "hello")
        await (await broker.take(failing)).retry(after=0)
        await (await broker.take(failing)).retry(after=DELAY)
        assert (await broker.take(failing)).attempt == 3

        assert await broker.texts_before_end(transport, other) == ["hello"]

    async def test_a_delay_that_was_not_prepared_is_refused_and_settles_nothing(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        delivery = await broker.take(stream)

        with pytest.raises(ValueError, match=r"12\.5"):
            await delivery.retry(after=12.5)
        with pytest.raises(ValueError, match=r"12\.5"):
            await delivery.defer(after=12.5)

        await delivery.retry(after=0)
        assert text_of(await broker.take(stream)) == "hello"

    async def test_a_dead_letter_keeps_the_event_and_its_story(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        sent = broker.message("hello")
        await transport.send(sent, timeout=broker.patience)
        failure = broker.failure("no such user: 'ann'\n\tü", attempt=3)

        await (await broker.take(stream)).dead_letter(failure)

        (letter,) = await broker.dead_letters(transport)
        assert letter.message == sent
        assert letter.failure == failure
        await stream.aclose()
        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == []

    async def test_bytes_that_are_no_json_become_a_dead_letter_as_they_are(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        body = bytes(range(256))
        await transport.send(broker.message(body=body), timeout=broker.patience)

        await (await broker.take(stream)).dead_letter(broker.failure())

        (letter,) = await broker.dead_letters(transport)
        assert letter.message.body == body

    async def test_a_huge_story_does_not_keep_an_event_from_being_given_up(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        huge = "frame\n" * 200_000 + "the last line"

        await (await broker.take(stream)).dead_letter(broker.failure(huge, traceback=huge))

        (letter,) = await broker.dead_letters(transport)
        assert text_of(letter) == "hello"
        assert letter.failure.traceback.endswith("the last line")

    async def test_dead_letters_belong_to_a_service_and_come_oldest_first(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        other_service = f"{broker.service_name}-other"
        mine = await transport.subscribe(broker.subscription())
        other = await transport.subscribe(broker.subscription(service_name=other_service))
        await broker.send(transport, "a", "b", "c")
        for stream in (mine, other):
            for _ in range(3 if stream is mine else 1):
                await (await broker.take(stream)).dead_letter(broker.failure())

        assert texts_of(await broker.dead_letters(transport)) == ["a", "b", "c"]
        assert texts_of(await broker.dead_letters(transport, other_service)) == ["a"]
        assert await broker.dead_letters(transport, f"{broker.service_name}-unknown") == []

    async def test_reading_dead_letters_leaves_those_that_are_not_discarded(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        for text in "abc":
            message = broker.message(text)
            await transport.bury(
                broker.service_name, message, broker.failure(), timeout=broker.patience
            )

        letters = transport.dead_letters(broker.service_name)
        async with contextlib.aclosing(letters):
            async for letter in letters:
                if text_of(letter) == "b":
                    await letter.discard()

        assert texts_of(await broker.dead_letters(transport)) == ["a", "c"]
        assert texts_of(await broker.dead_letters(await broker.open())) == ["a", "c"]

    async def test_those_who_read_dead_letters_at_the_same_time_each_get_all(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        texts = [str(number) for number in range(50)]
        for text in texts:
            await transport.bury(
                broker.service_name,
                broker.message(text),
                broker.failure(),
                timeout=broker.patience,
            )
        first = transport.dead_letters(broker.service_name)
        async with contextlib.aclosing(first):
            read_first = [await anext(first)]
            # Of the same transport, and of others.
            others = [transport, await broker.open(), await broker.open()]
            reading = [asyncio.create_task(broker.dead_letters(other)) for other in others]
            for _ in range(10):
                await asyncio.sleep(0)
            read_first += [letter async for letter in first]

        async with asyncio.timeout(broker.patience):
            read = await asyncio.gather(*reading)
        assert [texts_of(letters) for letters in (read_first, *read)] == [texts] * 4

    async def test_dead_letters_are_counted_as_far_as_the_broker_tells(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        none = await transport.count_dead_letters(broker.service_name)
        assert none.total in (0, None)
        for listener in ("first", "second", "second"):
            await transport.bury(
                broker.service_name,
                broker.message(),
                broker.failure(listener=listener),
                timeout=broker.patience,
            )

        counted = await transport.count_dead_letters(broker.service_name)

        assert counted.total in (3, None)
        if counted.by_listener is not None:
            assert dict(counted.by_listener) == {
                (broker.api_name, "first"): 1,
                (broker.api_name, "second"): 2,
            }
        assert len(await broker.dead_letters(transport)) == 3

    async def test_a_buried_event_keeps_the_story_it_is_given(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        message = attrs.evolve(
            broker.message("moved"),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        failure = broker.failure(
            failed_at=datetime(2020, 1, 1, 12, tzinfo=UTC), hostname="elsewhere", pid=7, attempt=4
        )

        await transport.bury(broker.service_name, message, failure, timeout=broker.patience)

        (letter,) = await broker.dead_letters(transport)
        assert (letter.message, letter.failure) == (message, failure)
