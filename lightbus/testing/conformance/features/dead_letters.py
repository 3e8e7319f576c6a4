"""`DeadLetterStore`: the dead letters of services."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import attrs
import pytest

from lightbus.names import MAX_LENGTH
from lightbus.testing.conformance.broker import DELAY, NAMES, BrokerUnderTest, text_of, texts_of
from lightbus.transport.features import DeadLetterStore


@pytest.mark.asyncio
class TestDeadLetterStore:
    async def test_a_dead_letter_keeps_the_event_and_its_failure(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, _ = await broker.open_with(DeadLetterStore)
        stream = await transport.subscribe(broker.subscription())
        sent = broker.message("hello")
        await transport.send(sent, timeout=broker.patience)
        failure = broker.failure("no such user: 'ann'\n\tü", attempt=3)

        await (await broker.receive(stream)).dead_letter(failure)

        (letter,) = await broker.dead_letters(transport)
        assert letter.message == sent
        assert letter.failure == failure
        await stream.aclose()
        again = await transport.subscribe(broker.subscription())
        assert await broker.texts_before_end(transport, again) == []

    async def test_bytes_that_are_not_json_are_dead_lettered_unchanged(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, _ = await broker.open_with(DeadLetterStore)
        stream = await transport.subscribe(broker.subscription())
        body = bytes(range(256))
        await transport.send(broker.message(body=body), timeout=broker.patience)

        await (await broker.receive(stream)).dead_letter(broker.failure())

        (letter,) = await broker.dead_letters(transport)
        assert letter.message.body == body

    async def test_an_event_with_a_huge_failure_is_dead_lettered(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, _ = await broker.open_with(DeadLetterStore)
        stream = await transport.subscribe(broker.subscription())
        await broker.send(transport, "hello")
        huge = "frame\n" * 200_000 + "the last line"

        await (await broker.receive(stream)).dead_letter(broker.failure(huge, traceback=huge))

        (letter,) = await broker.dead_letters(transport)
        assert text_of(letter) == "hello"
        assert letter.failure.traceback.endswith("the last line")

    async def test_dead_letters_belong_to_a_service_and_come_oldest_first(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, _ = await broker.open_with(DeadLetterStore)
        other_service = f"{broker.service_name}-other"
        mine = await transport.subscribe(broker.subscription())
        other = await transport.subscribe(broker.subscription(service_name=other_service))
        await broker.send(transport, "a", "b", "c")
        for stream in (mine, other):
            for _ in range(3 if stream is mine else 1):
                await (await broker.receive(stream)).dead_letter(broker.failure())

        assert texts_of(await broker.dead_letters(transport)) == ["a", "b", "c"]
        assert texts_of(await broker.dead_letters(transport, other_service)) == ["a"]
        assert await broker.dead_letters(transport, f"{broker.service_name}-unknown") == []

    async def test_reading_dead_letters_leaves_those_that_are_not_discarded(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, store = await broker.open_with(DeadLetterStore)
        for text in "abc":
            message = broker.message(text)
            await store.add_dead_letter(
                broker.service_name, message, broker.failure(), timeout=broker.patience
            )

        letters = store.dead_letters(broker.service_name)
        async with contextlib.aclosing(letters):
            async for letter in letters:
                if text_of(letter) == "b":
                    await letter.discard()

        assert texts_of(await broker.dead_letters(transport)) == ["a", "c"]
        assert texts_of(await broker.dead_letters(await broker.open())) == ["a", "c"]

    async def test_readers_at_the_same_time_each_read_all_dead_letters(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, store = await broker.open_with(DeadLetterStore)
        texts = [str(number) for number in range(50)]
        for text in texts:
            await store.add_dead_letter(
                broker.service_name,
                broker.message(text),
                broker.failure(),
                timeout=broker.patience,
            )
        first = store.dead_letters(broker.service_name)
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

    async def test_dead_letters_are_counted_if_the_broker_reports_them(
        self, broker: BrokerUnderTest
    ) -> None:
        transport, store = await broker.open_with(DeadLetterStore)
        none = await store.count_dead_letters(broker.service_name)
        assert none.total in (0, None)
        for listener in ("first", "second", "second"):
            await store.add_dead_letter(
                broker.service_name,
                broker.message(),
                broker.failure(listener=listener),
                timeout=broker.patience,
            )

        counted = await store.count_dead_letters(broker.service_name)

        assert counted.total in (3, None)
        if counted.by_listener is not None:
            assert dict(counted.by_listener) == {
                (broker.api_name, "first"): 1,
                (broker.api_name, "second"): 2,
            }
        assert len(await broker.dead_letters(transport)) == 3

    async def test_an_added_dead_letter_keeps_its_failure(self, broker: BrokerUnderTest) -> None:
        transport, store = await broker.open_with(DeadLetterStore)
        message = attrs.evolve(
            broker.message("moved"),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        failure = broker.failure(
            failed_at=datetime(2020, 1, 1, 12, tzinfo=UTC), hostname="elsewhere", pid=7, attempt=4
        )

        await store.add_dead_letter(broker.service_name, message, failure, timeout=broker.patience)

        (letter,) = await broker.dead_letters(transport)
        assert (letter.message, letter.failure) == (message, failure)

    async def test_names_of_the_maximum_length_work_together(self, broker: BrokerUnderTest) -> None:
        def longest(name: str) -> str:
            return name.ljust(MAX_LENGTH, "x")

        transport, store = await broker.open_with(DeadLetterStore)
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
        await (await broker.receive(stream)).retry(after=DELAY)

        again = await broker.receive(stream)
        await again.dead_letter(broker.failure())

        assert (again.message, again.attempt) == (message, 2)
        assert [one.message async for one in store.dead_letters(subscription.service_name)] == [
            message
        ]

    @pytest.mark.parametrize("name", list(NAMES.values()), ids=list(NAMES))
    async def test_a_listener_of_any_valid_name_has_dead_letters(
        self, broker: BrokerUnderTest, name: str
    ) -> None:
        transport, _ = await broker.open_with(DeadLetterStore)
        subscription = broker.subscription(name)
        stream = await transport.subscribe(subscription)
        await broker.send(transport, "hello")

        delivery = await broker.receive(stream)
        await delivery.dead_letter(broker.failure())

        (letter,) = await broker.dead_letters(transport)
        assert text_of(letter) == "hello"
