"""The broker that the tests start: that it is real, private, and gone when it should be."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue
from aiormq.exceptions import ChannelAccessRefused

from rabbitmq_node import NEW_QUEUES_ARE_SAVED_AFTER, NodeFailed, RabbitMQNode
from rabbitmq_server import RabbitMQServer

# A node that is started twice in a test takes longer than the limit that suits the others.
RESTARTING = pytest.mark.timeout(120)


@asynccontextmanager
async def channel_to(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel()


async def quorum_queue(channel: AbstractChannel) -> AbstractQueue:
    return await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})


async def send(channel: AbstractChannel, queue: AbstractQueue, body: bytes) -> None:
    message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await channel.default_exchange.publish(message, routing_key=queue.name)


def processes_of(folder: Path) -> list[int]:
    """The processes that were started for the node in `folder`: it is in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if str(folder).encode() in environment:
                found.append(int(entry.name))
    return found


def becomes_true(condition: Callable[[], bool], *, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


async def test_a_message_goes_through_a_quorum_queue(rabbitmq_url: str) -> None:
    async with channel_to(rabbitmq_url) as channel:
        queue = await quorum_queue(channel)
        await send(channel, queue, b"hello")
        message = await queue.get(timeout=5)
        assert message.body == b"hello"
        await message.ack()


def test_a_virtual_host_is_there_until_it_is_deleted(rabbitmq_node: RabbitMQNode) -> None:
    name = "with / and ü"
    rabbitmq_node.create_vhost(name)
    assert name in [vhost["name"] for vhost in rabbitmq_node.api("GET", "vhosts")]
    rabbitmq_node.delete_vhost(name)
    assert name not in [vhost["name"] for vhost in rabbitmq_node.api("GET", "vhosts")]


async def test_a_user_may_do_what_it_was_allowed_and_no_more(
    rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    rabbitmq_node.add_user("reader", "p@ss/word", vhost=rabbitmq_vhost, configure="", write="")
    url = rabbitmq_node.url(rabbitmq_vhost, user="reader", password="p@ss/word")
    async with channel_to(url) as channel:
        with pytest.raises(ChannelAccessRefused):
            await quorum_queue(channel)


async def test_the_broker_can_close_the_connections_of_a_virtual_host(
    rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str
) -> None:
    closed = asyncio.Event()
    async with await aio_pika.connect(rabbitmq_node.url(rabbitmq_vhost)) as connection:
        connection.close_callbacks.add(lambda *_: closed.set())
        await asyncio.to_thread(rabbitmq_node.close_connections, rabbitmq_vhost)
        await asyncio.wait_for(closed.wait(), timeout=5)


def test_rabbitmqctl_reaches_the_node(rabbitmq_node: RabbitMQNode, rabbitmq_vhost: str) -> None:
    assert rabbitmq_vhost in rabbitmq_node.ctl("list_vhosts", "--quiet").splitlines()
    with pytest.raises(NodeFailed, match="no-such-command"):
        rabbitmq_node.ctl("no-such-command")


@pytest.mark.faults
@RESTARTING
async def test_a_killed_node_comes_back_with_its_messages(
    private_rabbitmq_node: RabbitMQNode,
) -> None:
    node = private_rabbitmq_node
    async with channel_to(node.url()) as channel:
        await send(channel, await quorum_queue(channel), b"kept")
        await asyncio.sleep(NEW_QUEUES_ARE_SAVED_AFTER)
        node.kill()
    assert not node.is_running
    await asyncio.to_thread(node.start)
    async with channel_to(node.url()) as channel:
        message = await (await quorum_queue(channel)).get(timeout=5)
        assert message.body == b"kept"


@pytest.mark.faults
@RESTARTING
def test_a_stopped_node_leaves_no_process_behind(private_rabbitmq_node: RabbitMQNode) -> None:
    node = private_rabbitmq_node
    assert processes_of(node.folder)
    node.stop()
    assert not node.is_running
    assert becomes_true(lambda: not processes_of(node.folder))


def test_a_node_ends_with_the_test_run_that_started_it(tmp_path: Path) -> None:
    starts_a_node = (
        "import sys, pathlib, rabbitmq_node;"
        "rabbitmq_node.RabbitMQNode(pathlib.Path(sys.argv[1])).start()"
    )
    command = [sys.executable, "-c", starts_a_node, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parent) as run:
        assert becomes_true((tmp_path / "pid").exists, within=40)
        run.kill()
    assert becomes_true(lambda: not processes_of(tmp_path))


def test_the_environment_can_name_a_broker_that_is_there_already() -> None:
    name = {"LIGHTBUS_TEST_AMQP_URL": "amqp://me:p%40ss@broker.example.com/ignored"}
    moved = {"LIGHTBUS_TEST_MANAGEMENT_URL": "http://elsewhere.example.com:8080"}

    assert RabbitMQServer.given_by({}) is None
    by_default, told = RabbitMQServer.given_by(name), RabbitMQServer.given_by(name | moved)

    assert by_default is not None
    assert by_default.url("mine") == "amqp://me:p%40ss@broker.example.com:5672/mine"
    assert (by_default.management_host, by_default.management_port) == ("broker.example.com", 15672)
    assert told is not None
    assert (told.management_host, told.management_port) == ("elsewhere.example.com", 8080)


def test_a_root_without_rabbitmq_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_ROOT", str(tmp_path / "root"))
    with pytest.raises(NodeFailed, match=r"RABBITMQ_ROOT names .*/root, in which there is no"):
        RabbitMQNode(tmp_path).start()


def test_a_missing_rabbitmq_is_an_error_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RABBITMQ_ROOT", raising=False)
    monkeypatch.setenv("RABBITMQ_SERVER", str(tmp_path / "not-there"))
    with pytest.raises(NodeFailed, match="apt-get install rabbitmq-server"):
        RabbitMQNode(tmp_path).start()


def test_a_node_that_cannot_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "rabbitmq-server"
    server.write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.delenv("RABBITMQ_ROOT", raising=False)
    monkeypatch.setenv("RABBITMQ_SERVER", str(server))
    with pytest.raises(NodeFailed, match=r"ended with 3.*(?s:.)*the disk is on fire"):
        RabbitMQNode(tmp_path / "node").start()
    assert becomes_true(lambda: not processes_of(tmp_path / "node"))
