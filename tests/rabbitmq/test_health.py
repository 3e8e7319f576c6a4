"""The health check of a worker while RabbitMQ fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lightbus import Bus, Worker, create
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import QUEUE, AuthApi, Broker, MakeBus, Seen


async def until(worker: Worker, holds: Callable[[list[str]], bool]) -> list[str]:
    """Return what the worker's problems are, once `holds` is true of them."""
    async with asyncio.timeout(40):
        # Nothing tells of it.
        while not holds(problems := await worker.check_health(timeout=1)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return problems


def listening(bus: Bus) -> Seen[str]:
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    return seen


async def test_a_worker_is_ready_when_it_has_started_and_not_when_it_has_stopped(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    listening(bus)
    worker = Worker(bus)
    assert await worker.check_health()

    async with worker:
        assert await worker.check_health() == []

    assert await worker.check_health()


async def test_a_lost_consumer_is_restored_or_reported(make_bus: MakeBus, broker: Broker) -> None:
    bus = make_bus()
    seen = listening(bus)
    async with Worker(bus) as worker:
        await until(worker, lambda problems: not problems)

        # The broker cancels the consumer when its queue is deleted.
        await broker.channel.queue_delete(QUEUE)
        await broker.wait_for_consumer(QUEUE)

        await until(worker, lambda problems: not problems)
        await bus.auth.user_created.fire_async(username="ada", email="e")
        assert await seen.wait_for(1) == ["ada"]


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_readiness_follows_the_broker(private_rabbitmq_node: RabbitMQNode) -> None:
    node = private_rabbitmq_node
    default = {"event_transport": {"rabbitmq": {"url": node.url()}}}
    bus = create({"apis": {"default": default}}, service_name="shop")
    bus.client.register_api(AuthApi)
    seen = listening(bus)
    async with Worker(bus) as worker:
        await bus.auth.user_created.fire_async(username="ada", email="e")
        await seen.wait_for(1)
        assert await worker.check_health() == []

        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00000001")
        # The broker tells only connections that publish.
        firing = asyncio.create_task(bus.auth.user_created.fire_async(username="bob", email="e"))
        problems = await until(worker, bool)
        assert "low on memory or disk space" in problems[0]
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
        await firing
        await until(worker, lambda problems: not problems)

        await asyncio.to_thread(node.stop)
        problems = await until(worker, lambda problems: len(problems) == 2)
        assert "was not reached" in problems[0]
        assert "has lost its consumer" in problems[1]
        await asyncio.to_thread(node.start)
        await until(worker, lambda problems: not problems)
        await bus.auth.user_created.fire_async(username="cyd", email="e")
        assert await seen.wait_for(3) == ["ada", "bob", "cyd"]
    await bus.client.close_async()
