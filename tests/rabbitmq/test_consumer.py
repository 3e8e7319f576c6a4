"""A listener's consumer is restored, however it was lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pamqp.commands import Basic

from lightbus import Worker
from lightbus.exceptions import TopologyMismatch
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import QUEUE, Broker, MakeBus, Seen
from tcp_proxy import running_proxy

# How long a consumer may hold a delivery, and how often the broker checks that, in milliseconds
IMPATIENT = """
application:set_env(rabbit, consumer_timeout, 2000),
application:set_env(rabbit, channel_tick_interval, 500).
"""

IDLE = """
import asyncio, json, sys, time
import lightbus
from rabbitmq_support import AuthApi

SECONDS = 10

async def main():
    transport = {"rabbitmq": {"url": sys.argv[1]}}
    bus = lightbus.create({"apis": {"default": {"event_transport": transport}}})
    bus.client.register_api(AuthApi)
    for number in range(200):
        bus.auth.user_created.listen(lambda username: None, listener_name=f"listener_{number}")
    async with lightbus.Worker(bus):
        await asyncio.sleep(1)
        before = time.process_time()
        await asyncio.sleep(SECONDS)
        used = (time.process_time() - before) / SECONDS
    await bus.client.close_async()
    print(json.dumps(used))

asyncio.run(main())
"""


@pytest.mark.faults
def test_a_worker_with_200_listeners_that_wait_uses_next_to_no_cpu(rabbitmq_url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IDLE, rabbitmq_url],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        timeout=50,
        check=True,
    )

    # Of one core
    assert json.loads(ended.stdout.splitlines()[-1]) < 0.01


async def test_a_deleted_queue_is_declared_again_and_consumed(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        await broker.channel.queue_delete(QUEUE)
        await broker.wait_for_consumer(QUEUE)

        await bus.auth.user_created.fire_async(username="ada", email="e")

        assert await seen.wait_for(1) == ["ada"]


async def test_a_queue_recreated_with_other_settings_ends_the_worker(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    worker = Worker(bus)
    started = asyncio.Event()
    running = asyncio.create_task(worker.run(on_started=started.set))
    await started.wait()

    await broker.channel.queue_delete("lightbus:shop:dead")
    await broker.channel.queue_declare("lightbus:shop:dead", durable=True)
    await broker.channel.queue_delete(QUEUE)

    with pytest.raises(TopologyMismatch, match="lightbus:shop:dead"):
        async with asyncio.timeout(20):
            await running


async def test_a_connection_closed_by_the_broker_is_opened_again(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    bus = make_bus()
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        for round_ in range(3):
            await asyncio.to_thread(rabbitmq_node.close_connections, rabbitmq_vhost)
            await bus.auth.user_created.fire_async(username=f"u{round_}", email="e")
            await seen.wait_for(round_ + 1)

    assert sorted(set(seen.items)) == ["u0", "u1", "u2"]


async def test_an_event_is_redelivered_if_the_connection_is_cut_while_it_is_handled(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        bus = make_bus(url=f"amqp://127.0.0.1:{proxy.port}/{rabbitmq_vhost}")
        seen = Seen[str]()
        release = asyncio.Event()

        async def welcome(username: str) -> None:
            await seen.add(username)
            await release.wait()

        bus.auth.user_created.listen(welcome, listener_name="welcome")
        async with Worker(bus) as worker:
            await bus.auth.user_created.fire_async(username="ada", email="e")
            await seen.wait_for(1)
            proxy.cut()
            release.set()

            assert await seen.wait_for(2) == ["ada", "ada"]
            assert worker.failure is None


@pytest.mark.faults
async def test_a_silent_connection_is_detected_by_its_heartbeat(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        bus = make_bus(
            url=f"amqp://127.0.0.1:{proxy.port}/{rabbitmq_vhost}",
            transport={"heartbeat": 1, "connect_timeout": 1},
        )
        seen = Seen[str]()
        bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
        async with Worker(bus):
            proxy.silence()
            firing = asyncio.create_task(
                bus.auth.user_created.fire_async(username="ada", email="e")
            )
            await asyncio.sleep(8)  # more than three heartbeats: the time itself is tested
            proxy.cut()
            proxy.resume()
            await firing

            assert "ada" in await seen.wait_for(1)


@pytest.mark.timeout(120)
async def test_a_consumer_that_held_a_delivery_for_too_long_is_restored(
    make_bus: MakeBus, private_rabbitmq_node: RabbitMQNode
) -> None:
    await asyncio.to_thread(private_rabbitmq_node.ctl, "eval", IMPATIENT)
    bus = make_bus(url=private_rabbitmq_node.url())
    seen = Seen[str]()
    came_again = asyncio.Event()

    async def welcome(username: str) -> None:
        await seen.add(username)
        if len(seen.items) > 1:
            came_again.set()
        await came_again.wait()

    bus.auth.user_created.listen(welcome, listener_name="welcome", concurrency=2)
    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ada", email="e")
        assert await seen.wait_for(2, timeout=60) == ["ada", "ada"]

        await bus.auth.user_created.fire_async(username="bob", email="e")
        await seen.wait_for_item("bob", timeout=60)


async def test_events_without_a_handler_are_requeued_when_the_worker_stops(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus(transport={"prefetch": 5})
    begun, release = asyncio.Event(), asyncio.Event()

    async def welcome(username: str) -> None:
        begun.set()
        await release.wait()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    for number in range(20):
        await bus.auth.user_created.fire_async(username=f"u{number}", email="e")
    worker = Worker(bus)
    running = asyncio.create_task(worker.run())
    await begun.wait()
    await broker.wait_for_count(QUEUE, 14)  # five are prefetched

    worker.request_stop()
    await broker.wait_for_count(QUEUE, 19)
    release.set()
    await running

    assert (await broker.get(QUEUE)).body == b'{"username":"u1","email":"e"}'


async def test_events_are_acknowledged_even_if_the_broker_does_not_answer_a_stop(
    make_bus: MakeBus, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str, broker: Broker
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        bus = make_bus(
            url=f"amqp://127.0.0.1:{proxy.port}/{rabbitmq_vhost}",
            transport={"operation_timeout": 1},
        )
        seen = Seen[str]()
        release = asyncio.Event()

        async def welcome(username: str) -> None:
            await seen.add(username)
            if username == "bob":
                await release.wait()

        bus.auth.user_created.listen(welcome, listener_name="welcome")
        worker = Worker(bus)
        await worker.start()
        # With its first event, a listener replaces its consumer.
        for name in ("ada", "bob"):
            await bus.auth.user_created.fire_async(username=name, email="e")
            await seen.wait_for_item(name)
        proxy.silence_answers()
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.5)  # the broker does not answer `basic.cancel` in time
        release.set()
        await stopping

    await broker.wait_for_no_consumer(QUEUE)
    assert isinstance((await broker.get(QUEUE)).delivery, Basic.GetEmpty)


async def test_a_worker_that_stops_at_its_first_event_still_settles_it(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()

    async def fail(username: str) -> None:
        for _ in range(int(username)):
            await asyncio.sleep(0)
        raise LookupError

    bus.auth.user_created.listen(fail, listener_name="welcome")
    # The worker stops while it replaces its consumer, each time at another step.
    for steps in range(0, 40, 3):
        await bus.auth.user_created.fire_async(username=str(steps), email="e")
        with pytest.raises(LookupError):
            await Worker(bus).run()

        assert await broker.count(QUEUE) == 0


async def test_a_bus_whose_worker_ran_many_times_keeps_no_tasks(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    async def tasks_beside_a_worker() -> int:
        async with Worker(bus):
            return len(asyncio.all_tasks())

    at_first = await tasks_beside_a_worker()
    for _ in range(10):
        at_last = await tasks_beside_a_worker()

    assert at_last <= at_first
