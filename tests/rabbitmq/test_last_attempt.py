"""Which attempts are counted. No event is dead-lettered before a handler had it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiormq
import pytest

from lightbus import EventMessage, Worker
from lightbus.exceptions import TransportUnavailable
from lightbus_rabbitmq.driver.operations import run_on_new_channel
from rabbitmq.service_support import AuthService, listener
from rabbitmq_support import (
    DEAD,
    QUEUE,
    Broker,
    MakeBus,
    Seen,
    Topology,
    headers_of,
    subscription,
    transport_of,
)
from service import Service

BODY = b'{"username": "ada", "email": "e"}'

PATIENCE = 20.0


def notes_in(topology: Topology) -> list[str]:
    return [name for name in topology.exchanges() if "last-attempt" in name]


async def lose_all_that_waits(url: str, count: int) -> None:
    """Hold `count` events like a worker, and lose the connection."""
    connection = await aiormq.connect(url)
    channel = await connection.channel()
    for _ in range(count):
        await channel.basic_get(QUEUE)
    await connection.close()


async def test_events_that_lost_workers_held_are_handled_even_if_one_attempt_is_allowed(
    make_bus: MakeBus, rabbitmq_url: str, broker: Broker, topology: Topology
) -> None:
    bus = make_bus(max_attempts=1)
    seen = Seen[int]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    for number in range(20):
        await bus.auth.user_created.fire_async(username=number, email="e")
    for _ in range(3):
        await lose_all_that_waits(rabbitmq_url, 20)
    await broker.wait_for_count(QUEUE, 20)

    async with Worker(bus):
        assert sorted(await seen.wait_for(20)) == list(range(20))

    assert await broker.count(QUEUE) == 0
    assert await broker.count(DEAD) == 0
    assert notes_in(topology) == []


def test_an_event_that_kills_its_workers_is_handled_as_often_as_attempts_are_allowed(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    auth = AuthService(tmp_path, rabbitmq_url)
    poison = "__import__('os').kill(__import__('os').getpid(), 9) if username == 'user-0' else None"
    shop = Service(
        tmp_path / "shop",
        listener(f"__import__('sys').stdout.flush(); {poison}"),
        url=rabbitmq_url,
        acknowledgement_timeout=0.5,
        max_attempts=3,
    )
    with shop:
        auth.fire_users(1)
        begun = 0
        for _ in range(3):
            assert shop.wait() == -signal.SIGKILL
            begun += shop.count_output("begun user-0")
            shop.start_process()
        auth.fire("bus.auth.user_created.fire(username='user-1', email='e')")
        shop.wait_for_output("done user-1")

        assert begun == 3
        assert shop.count_output("begun user-0") == 0
        assert shop.stop() == 0


async def test_dead_lettering_a_lost_last_attempt_removes_its_note(
    make_bus: MakeBus, broker: Broker, topology: Topology
) -> None:
    bus = make_bus(max_attempts=1)
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    transport = transport_of(bus)
    stream = await transport.subscribe(subscription())
    await (await anext(stream)).retry(after=0)
    assert await (await anext(stream)).last_attempt(1) is not None
    await stream.aclose()
    assert len(notes_in(topology)) == 1

    async with Worker(bus):
        letter = await broker.wait_for_message(DEAD)

    assert headers_of(letter)["lightbus-error-type"] == "lightbus.exceptions.AttemptsExhausted"
    assert seen.items == []
    assert notes_in(topology) == []


async def test_a_last_attempt_starts_even_if_the_answer_to_its_note_was_lost(
    make_bus: MakeBus,
    rabbitmq_url: str,
    broker: Broker,
    topology: Topology,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[str] = []

    async def run_and_lose_the_answer(
        connection: Any, operation: Any, *, doing: str, timeout: float
    ) -> Any:
        answer = await run_on_new_channel(connection, operation, doing=doing, timeout=timeout)
        if doing == "to note a last attempt" and not lost:
            lost.append(doing)
            raise TransportUnavailable("RabbitMQ did not answer.")
        return answer

    monkeypatch.setattr(
        "lightbus_rabbitmq.last_attempt.run_on_new_channel", run_and_lose_the_answer
    )
    bus = make_bus(max_attempts=1)
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    await bus.auth.user_created.fire_async(username="ada", email="e")
    await lose_all_that_waits(rabbitmq_url, 1)

    async with Worker(bus):
        assert await seen.wait_for(1) == ["ada"]

    assert lost
    assert await broker.count(DEAD) == 0
    assert notes_in(topology) == []


async def test_events_of_one_body_without_an_id_have_a_last_attempt_each(
    make_bus: MakeBus, rabbitmq_url: str, broker: Broker, topology: Topology
) -> None:
    seen = Seen[str]()

    async def wait_for_the_other(username: str) -> None:
        await seen.add(username)
        await seen.wait_for(2)

    first, second = (make_bus(max_attempts=1, transport={"prefetch": 1}) for _ in range(2))
    for bus in (first, second):
        bus.auth.user_created.listen(wait_for_the_other, listener_name="welcome")
    async with Worker(first):
        pass
    for _ in range(2):
        await broker.put_without_id("lightbus:auth", "user_created", BODY)
    await broker.wait_for_count(QUEUE, 2)
    await lose_all_that_waits(rabbitmq_url, 2)

    async with Worker(first):
        await seen.wait_for(1)
        async with Worker(second):
            await seen.wait_for(2)

    assert await broker.count(QUEUE) == 0
    assert await broker.count(DEAD) == 0
    assert notes_in(topology) == []


async def test_a_last_attempt_that_is_cancelled_as_its_worker_stops_is_repeated(
    make_bus: MakeBus, broker: Broker, rabbitmq_url: str, topology: Topology
) -> None:
    stopping = make_bus(max_attempts=1)
    begun = asyncio.Event()

    async def block(username: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    stopping.auth.user_created.listen(block, listener_name="welcome")
    await stopping.auth.user_created.fire_async(username="ada", email="e")
    await lose_all_that_waits(rabbitmq_url, 1)
    async with Worker(stopping) as worker:
        await begun.wait()
        for _ in range(2):  # the second request cancels running handlers
            worker.request_stop()
    assert notes_in(topology) == []

    bus = make_bus(max_attempts=1)
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        assert await seen.wait_for(1) == ["ada"]


async def test_stopping_workers_do_not_use_up_attempts_of_events_that_they_held(
    make_bus: MakeBus, broker: Broker
) -> None:
    transport = transport_of(make_bus())
    await transport.open(timeout=PATIENCE)
    await transport.declare(subscription(), timeout=PATIENCE)
    message = EventMessage(api_name="auth", event_name="user_created", body=b"{}")
    await transport.send(message, timeout=PATIENCE)

    for _ in range(25):
        stream = await transport.subscribe(subscription())
        await broker.wait_for_count(QUEUE, 0)  # the stream holds it
        await stream.aclose()
        await broker.wait_for_count(QUEUE, 1)

    async with asyncio.timeout(PATIENCE):
        delivery = await anext(await transport.subscribe(subscription()))
    assert delivery.message.id == message.id
    assert delivery.attempt <= 2
    assert await broker.count(DEAD) == 0
