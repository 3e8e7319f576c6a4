"""`InexactAttempts`: what its record of last attempts guarantees."""

from __future__ import annotations

import pytest

from lightbus.testing.conformance.broker import BrokerUnderTest
from lightbus.testing.conformance.processes import child_of, kill_workers_with
from lightbus.transport.contract import Delivery
from lightbus.transport.features import InexactAttempts, LastAttempt, SharedBroker


async def start_last_attempt(delivery: Delivery) -> Delivery | None:
    assert isinstance(delivery, LastAttempt)
    return await delivery.last_attempt(2)


@pytest.mark.asyncio
class TestInexactAttempts:
    async def test_a_last_attempt_that_kills_its_worker_does_not_start_again(
        self, broker: BrokerUnderTest
    ) -> None:
        broker.need(SharedBroker)
        broker.need(InexactAttempts)
        transport = await broker.open()
        subscription = broker.subscription()
        await transport.declare(subscription, timeout=broker.patience)
        await broker.send(transport, "a")
        await kill_workers_with(broker, subscription, "a")

        answers = []
        for _ in range(3):
            async with child_of(broker, "start_last", subscription) as worker:
                answers.append(await worker.read_line())
                await worker.kill()

        # One more attempt than allowed may start, because its number is not exact.
        assert answers[1:] == ["started before", "started before"]

    async def test_a_requeued_last_attempt_can_start_again(self, broker: BrokerUnderTest) -> None:
        broker.need(InexactAttempts)
        transport = await broker.open()
        subscription = broker.subscription()
        stream = await transport.subscribe(subscription)
        await broker.send(transport, "a")
        await (await broker.receive(stream)).retry(after=0)

        for _ in range(2):
            last = await start_last_attempt(await broker.receive(stream))
            assert last is not None
            await last.requeue()

        last = await start_last_attempt(await broker.receive(stream))
        assert last is not None
        await last.dead_letter(broker.failure())
        await stream.aclose()
        again = await transport.subscribe(subscription)
        assert await broker.texts_before_end(transport, again) == []
