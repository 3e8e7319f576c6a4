"""Each window of ``docs/rabbitmq.rst`` in which an event can be redelivered, but is not lost.

A process is killed, or its connection cut, exactly there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from lightbus import EventMessage, OnError, Worker, create
from lightbus.exceptions import SendRefused
from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER, RabbitMQNode
from rabbitmq_support import DEAD, QUEUE, AuthApi, Broker, MakeBus, Seen
from service import AUTH_API, Service
from tcp_proxy import running_proxy

TESTS = Path(__file__).parent.parent

OTHER_QUEUE = "lightbus:shop:count:auth"

# A worker that is killed once, at a point that the test names
WORKER = """
import pathlib
import sys
sys.path.insert(0, {tests!r})

import lightbus
from faults.failpoints import kill_once
from lightbus import OnError
from lightbus_rabbitmq.delivery import RabbitMQDelivery
from lightbus_rabbitmq.publisher import Publisher

kill_once({point})
bus = lightbus.create()


def welcome(username):
    print('begun', username)
    {body}
    print('done', username)


bus.auth.user_created.listen(welcome, listener_name='welcome', on_error=OnError.{on_error})
"""
# Once the copy of a delayed or dead event is confirmed, and before the original is acknowledged.
AFTER_THE_COPY = "Publisher, 'send_copy', when='after'"


def worker(point: str, *, body: str = "pass", on_error: str = "RETRY") -> str:
    return WORKER.format(tests=str(TESTS), point=point, body=body, on_error=on_error)


def ignore(event: EventMessage) -> None:
    pass


async def ids_in(broker: Broker, queue: str) -> Counter[str]:
    """Get all messages of a queue; return how often each event id occurs."""
    count = await broker.count(queue)
    taken = [await broker.get(queue) for _ in range(count)]
    return Counter(str(message.header.properties.message_id) for message in taken)


async def test_w1_an_event_whose_confirm_is_lost_is_sent_again(
    make_bus: MakeBus, broker: Broker, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    async with running_proxy(rabbitmq_node.amqp_port) as proxy:
        bus = make_bus(url=f"amqp://127.0.0.1:{proxy.port}/{rabbitmq_vhost}")
        bus.auth.user_created.listen(ignore, listener_name="welcome")
        first = await bus.auth.user_created.fire_async(username="ada", email="e")

        proxy.silence_answers()
        firing = asyncio.create_task(bus.auth.user_created.fire_async(username="bob", email="e"))
        await broker.wait_for_count(QUEUE, 2)
        proxy.cut()
        proxy.resume()
        second = await firing

        assert await ids_in(broker, QUEUE) == {first.id: 1, second.id: 2}
        await bus.client.close_async()


async def test_w2_where_one_queue_refuses_an_event_the_others_get_it_again(
    make_bus: MakeBus, broker: Broker, rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    small = {"pattern": ":welcome:", "definition": {"max-length": 1}, "apply-to": "queues"}
    rabbitmq_node.api("PUT", f"policies/{rabbitmq_vhost}/small", small)
    bus = make_bus(fire_timeout=2)
    for name in ("welcome", "count"):
        bus.auth.user_created.listen(ignore, listener_name=name)

    async def fill() -> None:
        for _ in range(20):
            await bus.auth.user_created.fire_async(username="ada", email="e")

    with pytest.raises(SendRefused) as raised:
        await fill()

    refused = raised.value.event_id
    assert (await ids_in(broker, OTHER_QUEUE))[refused] > 1
    assert refused not in await ids_in(broker, QUEUE)


async def test_w3_an_event_that_was_handled_and_not_acknowledged_comes_again(
    make_bus: MakeBus, rabbitmq_url: str, tmp_path: Path
) -> None:
    module = worker("RabbitMQDelivery, 'ack', when='before'")
    with Service(tmp_path, module, url=rabbitmq_url, name="shop") as service:
        await make_bus().auth.user_created.fire_async(username="ada", email="e")
        service.wait()
        assert service.count_output("done ada") == 1

        service.start().wait_for_output("done ada")
        assert service.stop() == 0


async def test_w4_a_worker_that_dies_once_a_delay_is_confirmed_leaves_the_event_twice(
    make_bus: MakeBus, broker: Broker, rabbitmq_url: str, tmp_path: Path
) -> None:
    module = worker(AFTER_THE_COPY, body="assert pathlib.Path('mended').exists()")
    settings = {"retry": {"first": 0.5, "longest": 0.5}}
    with Service(tmp_path, module, url=rabbitmq_url, name="shop", **settings) as service:
        await make_bus().auth.user_created.fire_async(username="ada", email="e")
        service.wait()
        (tmp_path / "mended").touch()

        service.start().wait_for_output("done ada", count=2)
        assert service.stop() == 0
    assert await broker.count(QUEUE) == 0


@pytest.mark.faults
@pytest.mark.timeout(90)
async def test_w5_a_broker_that_dies_while_delays_end_loses_none_of_the_delayed(
    private_rabbitmq_node: RabbitMQNode,
) -> None:
    node = private_rabbitmq_node
    delay = NEW_QUEUES_ARE_SAVED_AFTER + 0.5
    settings = {"url": node.url(), "heartbeat": 2}
    api = {
        "event_transport": {"rabbitmq": settings},
        "retry": {"first": delay, "longest": delay},
    }
    bus = create({"apis": {"default": api}}, service_name="shop")
    bus.client.register_api(AuthApi)
    failed: set[str] = set()
    handled: set[str] = set()
    delays_end, all_handled = asyncio.Event(), asyncio.Event()

    async def welcome(event: EventMessage) -> None:
        if event.id not in failed:
            failed.add(event.id)
            raise ValueError
        delays_end.set()
        handled.add(event.id)
        if len(handled) == 100:
            all_handled.set()

    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.RETRY, concurrency=20
    )
    async with Worker(bus):
        for number in range(100):
            await bus.auth.user_created.fire_async(username=f"u{number}", email="e")
        await delays_end.wait()
        await asyncio.to_thread(node.kill)
        assert len(handled) < 100
        await asyncio.to_thread(node.start)

        async with asyncio.timeout(30):
            await all_handled.wait()
    await bus.client.close_async()


async def test_w6_a_worker_that_dies_once_a_dead_letter_is_confirmed_handles_the_event_again(
    make_bus: MakeBus, broker: Broker, rabbitmq_url: str, tmp_path: Path
) -> None:
    module = worker(AFTER_THE_COPY, body="raise ValueError", on_error="ACKNOWLEDGE_AND_LOG")
    with Service(tmp_path, module, url=rabbitmq_url, name="shop") as service:
        fired = await make_bus().auth.user_created.fire_async(username="ada", email="e")
        service.wait()

        service.start().wait_for_output("begun ada")
        await broker.wait_for_count(DEAD, 2)
        assert service.stop() == 0
    assert await ids_in(broker, DEAD) == {fired.id: 2}
    assert await broker.count(QUEUE) == 0


async def test_w7_an_event_whose_handler_timed_out_comes_again_though_that_may_be_done_yet(
    make_bus: MakeBus,
) -> None:
    bus = make_bus(acknowledgement_timeout=0.5)
    begun: list[str] = []
    done = Seen[str]()
    loop = asyncio.get_running_loop()

    def welcome(event: EventMessage) -> None:
        begun.append(event.id)
        if len(begun) == 1:
            time.sleep(0.8)
        asyncio.run_coroutine_threadsafe(done.add(event.id), loop).result()

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    async with Worker(bus):
        fired = await bus.auth.user_created.fire_async(username="ada", email="e")

        assert await done.wait_for(2) == [fired.id, fired.id]


async def test_w8_a_replay_that_dies_before_the_dead_letter_is_gone_leaves_both(
    make_bus: MakeBus, broker: Broker, rabbitmq_url: str, tmp_path: Path
) -> None:
    bus = make_bus()

    async def fail(event: EventMessage) -> None:
        raise ValueError

    bus.auth.user_created.listen(
        fail, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        fired = await bus.auth.user_created.fire_async(username="ada", email="e")
        await broker.wait_for_count(DEAD, 1)
    program = """
        from faults.failpoints import kill_once
        from lightbus.cli import main
        from lightbus_rabbitmq import RabbitMQTransport

        kill_once(RabbitMQTransport, "send", when="after")
        main(["dead-letters", "replay", "--all"])
    """

    killed = run(tmp_path, program, rabbitmq_url)
    again = run(tmp_path, program, rabbitmq_url)

    assert (killed.returncode, again.returncode) == (-signal.SIGKILL, 0), again.stderr
    assert await ids_in(broker, QUEUE) == {fired.id: 2}
    assert await broker.count(DEAD) == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_service_that_dies_while_it_fires_sends_the_event_or_not_at_all(
    make_bus: MakeBus, broker: Broker, rabbitmq_url: str, tmp_path: Path, when: str
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(ignore, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    program = f"""
        from bus import bus
        from faults.failpoints import kill_once
        from lightbus_rabbitmq import RabbitMQTransport

        kill_once(RabbitMQTransport, "send", when={when!r})
        bus.auth.user_created.fire(username="bob", email="e")
    """

    killed = run(tmp_path, program, rabbitmq_url)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert await broker.count(QUEUE) == (2 if when == "after" else 1)


def run(folder: Path, program: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the folder of a service, and return the ended process."""
    Service(folder, AUTH_API, url=url, name="shop")
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
