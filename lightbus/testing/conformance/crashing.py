"""Processes that share the broker, and that are killed with it in their hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import warnings
from collections.abc import AsyncIterator

import msgspec
import pytest

from lightbus.config import TransportSettings
from lightbus.exceptions import TransportRefused
from lightbus.testing.conformance import child
from lightbus.testing.conformance.broker import (
    BrokerUnderTest,
    text_of,
    texts_of,
)
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import Capability
from lightbus.transport.records import Subscription


class Child:
    """A process that uses the broker, until it is killed."""

    def __init__(self, process: asyncio.subprocess.Process, patience: float) -> None:
        self._process = process
        self._patience = patience

    async def said(self) -> str:
        """Return the next line that it printed; an empty one after the last."""
        assert self._process.stdout is not None
        async with asyncio.timeout(self._patience):
            return (await self._process.stdout.readline()).decode().strip()

    async def kill(self) -> list[str]:
        """End it with SIGKILL; return what else it had printed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdout is not None
        rest = await self._process.stdout.read()
        await self._process.wait()
        # The last line may be cut off.
        return [line.decode() for line in rest.split(b"\n")[:-1]]


@contextlib.asynccontextmanager
async def child_of(
    broker: BrokerUnderTest, job: str, subscription: Subscription
) -> AsyncIterator[Child]:
    """Start a process that does one of the jobs in `child`; kill it in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        child.__name__,
        job,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    started = Child(process, broker.patience)
    try:
        assert process.stdin is not None
        orders = {
            "event_transport": broker.event_transport,
            "subscription": msgspec.to_builtins(subscription),
        }
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        await process.stdin.drain()
        yield started
    finally:
        await started.kill()


@pytest.mark.asyncio
class TestCrashing:
    async def test_another_process_shares_the_broker(self, broker: BrokerUnderTest) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        stream = await transport.subscribe(broker.subscription())

        async with child_of(broker, "send", broker.subscription()) as sender:
            assert text_of(await broker.take(stream)) == await sender.said() == "0"

    async def test_what_a_killed_process_was_told_is_stored_is_stored(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)

        async with child_of(broker, "send", subscription) as sender:
            confirmed = [await sender.said() for _ in range(100)]
            confirmed += await sender.kill()

        stream = await transport.subscribe(subscription)
        assert set(confirmed) <= set(await broker.texts_before_end(transport, stream))

    async def test_the_events_of_a_killed_worker_come_again_and_are_counted(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcde")

        async with child_of(broker, "take", subscription) as worker:
            assert await worker.said() == "a"
            await worker.kill()

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        deliveries = {text_of(taken): taken for taken in await broker.take_ones(stream, 5)}
        assert sorted(deliveries) == list("abcde")
        assert (deliveries["a"].attempt, deliveries["a"].returns) == (2, 1)

    async def test_every_crash_is_counted(self, broker: BrokerUnderTest) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, "a")
        for _ in range(2):
            async with child_of(broker, "take", subscription) as worker:
                assert await worker.said() == "a"
                await worker.kill()

        delivery = await broker.take(await transport.subscribe(subscription))

        assert (delivery.attempt, delivery.returns) == (3, 2)

    async def test_a_crash_counts_only_for_what_the_killed_worker_had_received(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(Capability.SHARED)
        broker.need(Capability.EXACT_ATTEMPTS)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcdef")

        async with child_of(broker, "ack_one", subscription) as worker:
            assert [await worker.said(), await worker.said()] == ["a", "b"]
            await worker.kill()
        for _ in range(2):
            async with child_of(broker, "take", subscription) as worker:
                assert await worker.said() == "b"
                await worker.kill()

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        deliveries = await broker.take_ones(stream, 5)
        counts = {text_of(taken): (taken.attempt, taken.returns) for taken in deliveries}
        assert counts == {"b": (4, 3), **dict.fromkeys("cdef", (1, 0))}

    @pytest.mark.parametrize("concurrency", [2, 5])
    async def test_a_crash_counts_for_all_that_the_killed_worker_had_received(
        self, broker: BrokerUnderTest, concurrency: int
    ) -> None:
        broker.need(Capability.SHARED)
        broker.need(Capability.EXACT_ATTEMPTS)
        transport = await broker.open()
        subscription = broker.subscription(concurrency=concurrency)
        await transport.declare(subscription, timeout=broker.patience)
        texts = "abcdefgh"
        await broker.send(transport, *texts)

        async with child_of(broker, "take_all", subscription) as worker:
            received = {await worker.said() for _ in range(concurrency)}
            await worker.kill()

        stream = await transport.subscribe(broker.subscription(concurrency=len(texts)))
        deliveries = await broker.take_ones(stream, len(texts))
        counts = {text_of(taken): (taken.attempt, taken.returns) for taken in deliveries}
        assert counts == {text: (2, 1) if text in received else (1, 0) for text in texts}

    async def test_no_event_is_given_up_that_a_killed_worker_only_held(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, *"abcde")
        for _ in range(2):
            async with child_of(broker, "take", subscription) as worker:
                assert await worker.said() == "a"
                await worker.kill()

        stream = await transport.subscribe(broker.subscription(concurrency=5))
        for delivery in await broker.take_ones(stream, 5):
            if text_of(delivery) == "a":
                await delivery.ack()
                continue
            last = delivery if delivery.attempt == 1 else await delivery.last_attempt(1)
            assert last is not None
            await last.ack()

    async def test_a_last_attempt_that_kills_its_worker_is_not_begun_again(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, "a")
        async with child_of(broker, "take", subscription) as worker:
            assert await worker.said() == "a"
            await worker.kill()

        begun = []
        for _ in range(3):
            async with child_of(broker, "begin_last", subscription) as worker:
                begun.append(await worker.said())
                await worker.kill()

        # A transport without exact attempts allows one more attempt.
        assert begun[1:] == ["begun before", "begun before"]

    async def test_a_last_attempt_that_was_given_back_can_begin_again(
        self, broker: BrokerUnderTest
    ) -> None:
        transport = await broker.open()
        subscription = broker.subscription()
        stream = await transport.subscribe(subscription)
        await broker.send(transport, "a")
        await (await broker.take(stream)).retry(after=0)

        for _ in range(2):
            last = await (await broker.take(stream)).last_attempt(2)
            assert last is not None
            await last.requeue()

        last = await (await broker.take(stream)).last_attempt(2)
        assert last is not None
        await last.dead_letter(broker.failure())
        assert len(await broker.dead_letters(transport)) == 1

    @pytest.mark.parametrize("handled", [7, 20, 41])
    async def test_a_worker_that_is_killed_while_it_settles_loses_nothing(
        self, broker: BrokerUnderTest, handled: int
    ) -> None:
        broker.need(Capability.SHARED)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        texts = {str(number) for number in range(60)}
        await asyncio.gather(*(broker.send(transport, text) for text in texts))

        async with child_of(broker, "work", subscription) as worker:
            acked = [await worker.said() for _ in range(handled // 3)]
            acked += await worker.kill()

        stream = await transport.subscribe(subscription)
        dead = set(texts_of(await broker.dead_letters(transport)))
        missing = texts - dead - set(acked)
        while missing:
            delivery = await broker.take(stream)
            missing.discard(text_of(delivery))
            await delivery.ack()


def test_what_can_not_be_shared_is_refused_in_a_forked_process(
    transport_class: type[EventTransport],
    event_transport: TransportSettings,
    patience: float,
) -> None:
    reason = transport_class.lacking.get(Capability.SHARED)
    if reason is None:
        # That it is shared is what the cases above show.
        return
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
        told = pipe.read().decode()
    os.waitpid(pid, 0)

    assert reason in told


async def _send_one(
    transport_class: type[EventTransport],
    event_transport: TransportSettings,
    patience: float,
) -> None:
    async with BrokerUnderTest(transport_class, event_transport, patience=patience) as broker:
        await broker.send(await broker.open(), "hello")
