"""`lightbus dead-letters` on RabbitMQ, also for events that the broker dead-lettered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiormq.abc import DeliveredMessage
from yarl import URL

from command import Command
from lightbus import Bus, OnError, Worker
from lightbus.exceptions import TransportUnavailable
from rabbitmq_node import RabbitMQNode
from rabbitmq_support import DEAD, QUEUE, Broker, MakeBus, Seen, transport_of
from tcp_proxy import running_proxy

OTHER_QUEUE = "lightbus:shop:count:auth"
BUS = "import lightbus\nbus = lightbus.create(service_name='shop')\n"


@pytest.fixture
def folder(tmp_path: Path, rabbitmq_url: str) -> Path:
    """The folder of the service."""
    default = {"event_transport": {"rabbitmq": {"url": rabbitmq_url}}}
    (tmp_path / "lightbus.json").write_text(json.dumps({"apis": {"default": default}}))
    (tmp_path / "bus.py").write_text(BUS)
    return tmp_path


def dead_letters(folder: Path, *arguments: str) -> str:
    """Run `lightbus dead-letters ...`; return what it printed."""
    with Command(folder) as command:
        code, printed, said = command("dead-letters", *arguments)
    assert code == 0, said
    return printed


def failing_listener_of(bus: Bus) -> Seen[str]:
    """Listen with a handler that always fails; return what it has seen."""
    seen = Seen[str]()

    async def fail(username: str) -> None:
        await seen.add(username)
        raise LookupError(username)

    bus.auth.user_created.listen(
        fail, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    return seen


async def test_reading_dead_letters_from_an_unreachable_broker_fails_in_time(
    make_bus: MakeBus, rabbitmq_url: str
) -> None:
    url = URL(rabbitmq_url)
    async with running_proxy(url.port or 0) as proxy:
        bus = make_bus(url=str(url.with_port(proxy.port)), transport={"operation_timeout": 0.5})
        await bus.auth.user_created.fire_async(username="ann", email="e")
        proxy.silence()
        proxy.cut()

        async with asyncio.timeout(10):
            with pytest.raises(TransportUnavailable, match=r"not reached within 0\.5 s"):
                async for _ in transport_of(bus).dead_letters("shop"):
                    pass

    # The transport is reconnecting.
    clock = asyncio.get_running_loop().time
    began = clock()
    await bus.client.close_async()
    assert clock() - began < 2


async def test_dead_letters_are_listed_and_replayed_to_their_own_listener(
    make_bus: MakeBus, broker: Broker, folder: Path
) -> None:
    bus = make_bus()
    seen = failing_listener_of(bus)

    async def count(username: str) -> None:
        pass

    bus.auth.user_created.listen(count, listener_name="count")
    names = [f"user-{number}" for number in range(20)]
    async with Worker(bus):
        for name in names:
            await bus.auth.user_created.fire_async(username=name, email="e")
        await seen.wait_for(20)
        await broker.wait_for_count(DEAD, 20)

    listed = json.loads(dead_letters(folder, "list", "--format", "json"))
    assert [letter["error_message"] for letter in listed] == names
    assert {letter["listener"] for letter in listed} == {"welcome"}
    # Listing them leaves them in the queue.
    await broker.wait_for_count(DEAD, 20)

    dead_letters(folder, "replay", listed[3]["id"])
    await broker.wait_for_count(DEAD, 19)
    await broker.wait_for_count(QUEUE, 1)
    dead_letters(folder, "replay", "--error", "LookupError")
    await broker.wait_for_count(DEAD, 0)
    await broker.wait_for_count(QUEUE, 20)
    assert await broker.count(OTHER_QUEUE) == 0


async def test_a_listener_that_cannot_dead_letter_an_event_pauses_and_logs_it(
    make_bus: MakeBus,
    broker: Broker,
    rabbitmq_node: RabbitMQNode,
    rabbitmq_vhost: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = {"max-length": 1, "overflow": "reject-publish"}
    policy = {"pattern": DEAD, "definition": full, "apply-to": "queues"}
    rabbitmq_node.api("PUT", f"policies/{rabbitmq_vhost}/full", policy)
    bus = make_bus(transport={"operation_timeout": 0.5})
    seen = Seen[str]()

    async def fail(username: str) -> None:
        await seen.add(username)
        raise ValueError

    bus.auth.user_created.listen(
        fail, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        # The queue accepts more than one dead letter before it notices that it is full.
        for number in range(10):
            await bus.auth.user_created.fire_async(username=f"u{number}", email="e")
        async with asyncio.timeout(20):
            while "listener paused" not in caplog.text:  # noqa: ASYNC110 - no one tells
                await asyncio.sleep(0.05)
        assert len(seen.items) < 10

        letters = asyncio.Queue[DeliveredMessage]()
        await broker.channel.basic_consume(DEAD, letters.put, no_ack=True)
        taken = [str((await letters.get()).header.properties.message_id) for _ in range(10)]
    assert len(set(taken)) == 10
    assert seen.items == [f"u{number}" for number in range(10)]


async def test_an_event_that_fails_again_while_it_is_replayed_is_replayed_once(
    make_bus: MakeBus, broker: Broker, folder: Path
) -> None:
    bus = make_bus()
    seen = failing_listener_of(bus)
    async with Worker(bus):
        for number in range(10):
            await bus.auth.user_created.fire_async(username=str(number), email="e")
        await broker.wait_for_count(DEAD, 10)

        await asyncio.to_thread(dead_letters, folder, "replay", "--all")

        await broker.wait_for_count(DEAD, 10)
        assert len(seen.items) == 20


async def test_events_that_the_broker_dead_lettered_can_be_replayed(
    make_bus: MakeBus, broker: Broker, folder: Path
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    fired = await bus.auth.user_created.fire_async(username="ada", email="e")
    # Requeued without a failure more often than the queue allows
    for _ in range(21):
        got = await broker.channel.basic_get(QUEUE)
        await broker.channel.basic_reject(int(got.delivery_tag or 0), requeue=True)
    await broker.wait_for_count(DEAD, 1)

    (letter,) = json.loads(dead_letters(folder, "list", "--format", "json"))
    assert letter["id"] == fired.id
    assert (letter["listener"], letter["event"]) == ("welcome", "auth.user_created")
    assert letter["error_message"] == "The event was redelivered too often."
    dead_letters(folder, "replay", "--all")

    again = await broker.wait_for_message(QUEUE)
    assert again.header.properties.message_id == fired.id


async def test_a_dead_letter_without_an_id_gets_the_same_id_each_time(
    make_bus: MakeBus, broker: Broker, folder: Path
) -> None:
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    await broker.get(QUEUE)
    await broker.put_without_id("lightbus:auth", "user_created", b'{"username": "bob"}')
    for _ in range(21):
        got = await broker.channel.basic_get(QUEUE)
        await broker.channel.basic_reject(int(got.delivery_tag or 0), requeue=True)
    # Another program may even send an event to the dead letter queue, without headers.
    await broker.put_without_id("", DEAD, b"{}")
    await broker.wait_for_count(DEAD, 2)

    ids = [letter["id"] for letter in json.loads(dead_letters(folder, "list", "--format", "json"))]

    assert len(set(ids)) == 2
    dead_letters(folder, "show", *ids)
    dead_letters(folder, "discard", "--all", "--yes")
    assert json.loads(dead_letters(folder, "list", "--format", "json")) == []
