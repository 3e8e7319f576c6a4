"""`lightbus move` to RabbitMQ and away from it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import lightbus
from command import TIMEOUT, Command
from lightbus import Bus, OnError, Worker
from lightbus.transport.features import DeadLetterStore, supports
from rabbitmq_support import QUEUE, AuthApi, Broker, Seen

BUS = """
import lightbus
bus = lightbus.create()
bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
"""


def config(transport: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of the service, with a short delay between attempts."""
    default = {"event_transport": transport, "acknowledgement_timeout": 2}
    return {"service_name": "shop", "apis": {"default": default}}


def move(folder: Path, source: dict[str, Any], target: dict[str, Any], *, code: int = 0) -> str:
    """Run `lightbus move`, and return what it said."""
    (folder / "bus.py").write_text(BUS)
    (folder / "old.json").write_text(json.dumps(source))
    (folder / "new.json").write_text(json.dumps(target))
    with Command(folder) as command:
        ended_with, _, said = command("move", "--config", "old.json", "--to", "new.json")
    assert ended_with == code, said
    return said


async def fire(settings: dict[str, Any], *names: str) -> None:
    """Fire events that wait for the listener of the service."""
    bus = made_bus(settings)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    for name in names:
        await bus.auth.user_created.fire_async(username=name, email="e")
    await bus.client.close_async()


def made_bus(settings: dict[str, Any]) -> Bus:
    """Return a bus of the service."""
    bus = lightbus.create(settings)
    bus.client.register_api(AuthApi)
    return bus


async def test_the_backlog_moves_to_rabbitmq_and_back_in_order(
    tmp_path: Path, rabbitmq_url: str, broker: Broker
) -> None:
    rabbitmq = config({"rabbitmq": {"url": rabbitmq_url}})
    sqlite = config({"sqlite": {"path": str(tmp_path / "events.db")}})
    names = [f"{number:03}" for number in range(200)]
    await fire(sqlite, *names)

    assert "200 events" in move(tmp_path, sqlite, rabbitmq)
    assert await broker.count(QUEUE) == 200
    assert "200 events" in move(tmp_path, rabbitmq, sqlite)
    assert await broker.count(QUEUE) == 0

    seen = Seen[str]()
    bus = made_bus(sqlite)
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    async with Worker(bus):
        assert await seen.wait_for(200) == names
    await bus.client.close_async()


async def test_a_move_to_the_same_broker_by_another_name_ends(
    tmp_path: Path, rabbitmq_url: str, broker: Broker
) -> None:
    here = config({"rabbitmq": {"url": rabbitmq_url}})
    there = config({"rabbitmq": {"url": rabbitmq_url.replace("127.0.0.1", "localhost")}})
    await fire(here, "ada", "bob")

    said = move(tmp_path, here, there, code=2)

    assert "this is the same broker as in old.json" in said
    # Events in flight are in both places, and none is lost.
    async with asyncio.timeout(TIMEOUT):
        while await broker.count(QUEUE) < 2:  # noqa: ASYNC110 - the broker does not tell
            await asyncio.sleep(0.05)


async def test_delayed_events_and_dead_letters_move_with_their_failures(
    tmp_path: Path, rabbitmq_url: str
) -> None:
    rabbitmq = config({"rabbitmq": {"url": rabbitmq_url}})
    sqlite = config({"sqlite": {"path": str(tmp_path / "events.db")}})
    for username, on_error in (
        ("given up", OnError.ACKNOWLEDGE_AND_LOG),
        ("delayed", OnError.SHUTDOWN),
    ):
        await fail_with(rabbitmq, username, on_error)

    assert "1 event and 1 dead letter" in move(tmp_path, rabbitmq, sqlite)

    bus = made_bus(sqlite)
    seen = Seen[str]()
    bus.auth.user_created.listen(lambda username: seen.add(username), listener_name="welcome")
    transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
    stream = await transport.subscribe(next(iter(bus.client.listeners)).subscription("shop"))
    delivery = await anext(stream)
    assert (delivery.message.kwargs["username"], delivery.attempt) == ("delayed", 2)
    assert supports(transport, DeadLetterStore)
    (letter,) = [letter async for letter in transport.dead_letters("shop")]
    assert letter.message.kwargs["username"] == "given up"
    assert (letter.failure.error_type, letter.failure.listener) == (
        "builtins.LookupError",
        "welcome",
    )
    assert "raise LookupError" in letter.failure.traceback
    await bus.client.close_async()


async def fail_with(settings: dict[str, Any], username: str, on_error: OnError) -> None:
    """Have the listener fail with one event."""
    bus = made_bus(settings)
    seen = Seen[str]()

    async def fail(username: str) -> None:
        await seen.add(username)
        raise LookupError(username)

    bus.auth.user_created.listen(fail, listener_name="welcome", on_error=on_error)
    await bus.auth.user_created.fire_async(username=username, email="e")
    worker = Worker(bus)
    await worker.start()
    await seen.wait_for(1)
    await worker.stop()
    await bus.client.close_async()
