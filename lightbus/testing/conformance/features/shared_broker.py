"""`SharedBroker`: processes that share the broker, and that are killed."""

from __future__ import annotations

import asyncio
import os
import warnings

import pytest

from lightbus.config import TransportSettings
from lightbus.exceptions import TransportRefused
from lightbus.testing.conformance.broker import (
    BrokerUnderTest,
    text_of,
    texts_of,
)
from lightbus.testing.conformance.processes import child_of, kill_workers_with
from lightbus.transport.contract import Delivery, EventTransport
from lightbus.transport.features import (
    DeadLetterStore,
    InexactAttempts,
    LastAttempt,
    SharedBroker,
    lists,
)


@pytest.mark.asyncio
class TestSharedBroker:
    async def test_another_process_shares_the_broker(self, broker: BrokerUnderTest) -> None:
        broker.need(SharedBroker)
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())

        async with child_of(broker, "send", broker.subscription()) as sender:
            assert text_of(await broker.receive(stream)) == await sender.read_line() == "0"

    async def test_events_that_a_killed_process_sent_are_stored(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(SharedBroker)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)

        async with child_of(broker, "send", subscription) as sender:
            confirmed = [await sender.read_line() for _ in range(100)]
            confirmed += await sender.kill()

        stream = await transport.subscribe(subscription)
        assert set(confirmed) <= set(await broker.texts_before_end(transport, stream))

    async def test_the_events_of_a_killed_worker_are_redelivered_and_counted(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(SharedBroker)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcde")

        await kill_workers_with(broker, subscription, "a")

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        deliveries = {text_of(taken): taken for taken in await broker.receive_many(stream, 5)}
        assert sorted(deliveries) == list("abcde")
        assert (deliveries["a"].attempt, deliveries["a"].redeliveries) == (2, 1)

    async def test_every_crash_is_counted(self, broker: BrokerUnderTest) -> None:
        broker.need(SharedBroker)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, "a")
        await kill_workers_with(broker, subscription, "a", times=2)

        delivery = await broker.receive(await transport.subscribe(subscription))

        assert (delivery.attempt, delivery.redeliveries) == (3, 2)

    async def test_a_crash_counts_only_for_what_the_killed_worker_had_received(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(SharedBroker)
        _need_exact_attempts(broker)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcdef")

        async with child_of(broker, "ack_one", subscription) as worker:
            assert [await worker.read_line(), await worker.read_line()] == ["a", "b"]
            await worker.kill()
        await kill_workers_with(broker, subscription, "b", times=2)

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        deliveries = await broker.receive_many(stream, 5)
        counts = {text_of(taken): (taken.attempt, taken.redeliveries) for taken in deliveries}
        assert counts == {"b": (4, 3), **dict.fromkeys("cdef", (1, 0))}

    @pytest.mark.parametrize("concurrency", [2, 5])
    async def test_a_crash_counts_for_all_that_the_killed_worker_had_received(
        self, broker: BrokerUnderTest, concurrency: int
    ) -> None:
        broker.need(SharedBroker)
        _need_exact_attempts(broker)
        transport = await broker.open()
        subscription = broker.subscription(concurrency=concurrency)
        await transport.declare(subscription, timeout=broker.patience)
        texts = "abcdefgh"
        await broker.send(transport, *texts)

        async with child_of(broker, "take_all", subscription) as worker:
            received = {await worker.read_line() for _ in range(concurrency)}
            await worker.kill()

        stream = await transport.subscribe(broker.subscription(concurrency=len(texts)))
        deliveries = await broker.receive_many(stream, len(texts))
        counts = {text_of(taken): (taken.attempt, taken.redeliveries) for taken in deliveries}
        assert counts == {text: (2, 1) if text in received else (1, 0) for text in texts}

    async def test_an_event_that_a_killed_worker_only_prefetched_is_not_dead_lettered(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(SharedBroker)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcde")
        await kill_workers_with(broker, subscription, "a", times=2)

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        for delivery in await broker.receive_many(stream, 5):
            if text_of(delivery) == "a":
                await delivery.ack()
                continue
            last: Delivery | None = delivery
            if delivery.attempt > 1 and isinstance(delivery, LastAttempt):
                last = await delivery.last_attempt(1)
            assert last is not None
            await last.ack()

    @pytest.mark.parametrize("handled", [7, 20, 41])
    async def test_a_worker_that_is_killed_while_it_settles_loses_nothing(
        self, broker: BrokerUnderTest, handled: int
    ) -> None:
        broker.need(SharedBroker)
        broker.need(DeadLetterStore)  # to count them
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        texts = {str(number) for number in range(60)}
        await asyncio.gather(*(broker.send(transport, text) for text in texts))

        async with child_of(broker, "work", subscription) as worker:
            acked = [await worker.read_line() for _ in range(handled // 3)]
            acked += await worker.kill()

        stream = await transport.subscribe(subscription)
        dead = set(texts_of(await broker.dead_letters(transport)))
        missing = texts - dead - set(acked)
        while missing:
            delivery = await broker.receive(stream)
            missing.discard(text_of(delivery))
            await delivery.ack()


def test_a_broker_in_one_process_refuses_a_forked_process(
    transport_class: type[EventTransport],
    event_transport: TransportSettings,
    patience: float,
) -> None:
    if lists(transport_class, SharedBroker):
        return  # the cases above show that it is shared
    asyncio.run(_send_one(transport_class, event_transport, patience))
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # From 3.12 on, Python warns of every fork beside a thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(_send_one(transport_class, event_transport, patience))
        except TransportRefused as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        refusal = pipe.read().decode()
    os.waitpid(pid, 0)

    assert "process" in refusal


async def _send_one(
    transport_class: type[EventTransport],
    event_transport: TransportSettings,
    patience: float,
) -> None:
    async with BrokerUnderTest(transport_class, event_transport, patience=patience) as broker:
        await broker.send(await broker.open(), "hello")


def _need_exact_attempts(broker: BrokerUnderTest) -> None:
    if lists(broker.transport_class, InexactAttempts):
        pytest.skip(f"{broker.transport_class.__name__} lists InexactAttempts.")
