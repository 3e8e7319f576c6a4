"""`lightbus move`: from one SQLite file to another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import TIMEOUT, Command, ended
from core.apis import AuthApi
from core.support import BUS, eventually
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.client import BusClient
from lightbus.operations.move import Move
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport

SERVICE = "shop"
SLOW = {
    "import": 'print("slow", file=sys.stderr, flush=True)\ntime.sleep(30)\n',
    "hook": """
@bus.client.on_start()
async def slow():
    print("slow", file=sys.stderr, flush=True)
    await asyncio.sleep(30)
""",
}


def config(file: Path, **api: Any) -> dict[str, Any]:
    """Return a configuration that leads to an SQLite file."""
    default = {"event_transport": {"sqlite": {"path": str(file), "lease": 1}}, **api}
    return {"service_name": SERVICE, "apis": {"default": default}}


MOVE = ("move", "--config", "old.json", "--to", "new.json")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The bus module and the two configurations that `MOVE` names."""
    (tmp_path / "bus.py").write_text(BUS)
    (tmp_path / "old.json").write_text(json.dumps(config(tmp_path / "old.db")))
    (tmp_path / "new.json").write_text(json.dumps(config(tmp_path / "new.db")))


@contextlib.asynccontextmanager
async def bus_on(file: Path) -> AsyncIterator[Bus]:
    """Give a bus of the service on an SQLite file."""
    bus = lightbus.create(config(file, acknowledgement_timeout=1))
    bus.client.register_api(AuthApi)
    yield bus
    await bus.client.close_async()


def listen(
    bus: Bus, handler: Callable[..., object], *, on_error: OnError = OnError.SHUTDOWN
) -> None:
    """Listen as the service does."""
    bus.auth.user_created.listen(handler, listener_name="welcome", on_error=on_error)
    bus.auth.user_deleted.listen(lambda username: None, listener_name="clean-up")


async def fire(file: Path, *names: str, at_once: bool = False) -> None:
    """Fire an event for each name, for the listeners of the service."""
    async with bus_on(file) as bus:
        listen(bus, lambda username: None)
        fired = [bus.auth.user_created.fire_async(username=name, email="e") for name in names]
        if at_once:
            await asyncio.gather(*fired)
        else:
            for one in fired:
                await one


async def transport_and_queue(bus: Bus) -> tuple[EventTransport, Subscription]:
    """Return the transport of a bus and the first of its subscriptions."""
    transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
    return transport, next(iter(bus.client.listeners)).subscription(SERVICE)


async def waiting_in(file: Path) -> list[tuple[str, int]]:
    """Return the name and the attempt of each event that waits, in order."""
    async with bus_on(file) as bus:
        listen(bus, lambda username: None)
        transport, subscription = await transport_and_queue(bus)
        assert isinstance(transport, SQLiteTransport)
        stream = await transport.subscribe(subscription)
        count = (await transport.stats(subscription)).total
        deliveries = [await anext(stream) for _ in range(count)]
        return [(delivery.message.kwargs["username"], delivery.attempt) for delivery in deliveries]


async def dead_in(file: Path) -> list[tuple[str, str]]:
    """Return the name and the error of each dead letter."""
    async with bus_on(file) as bus:
        transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
        assert isinstance(transport, SQLiteTransport)
        return [
            (letter.message.kwargs["username"], letter.failure.error_message)
            async for letter in transport.dead_letters(SERVICE)
        ]


async def test_waiting_events_move_in_their_order(command: Command, tmp_path: Path) -> None:
    names = [str(number) for number in range(150)]
    await fire(tmp_path / "old.db", *names)

    code, _, said = command(*MOVE)

    assert (code, "Moved 150 events and 0 dead letters." in said) == (0, True), said
    assert await waiting_in(tmp_path / "new.db") == [(name, 1) for name in names]
    assert await waiting_in(tmp_path / "old.db") == []


async def test_delayed_events_and_dead_letters_move_too(command: Command, tmp_path: Path) -> None:
    def fail(username: str) -> None:
        raise LookupError(f"no {username}")

    async def fail_with(username: str, on_error: OnError) -> None:
        async with bus_on(tmp_path / "old.db") as bus:
            listen(bus, fail, on_error=on_error)
            await bus.auth.user_created.fire_async(username=username, email="e")
            transport, subscription = await transport_and_queue(bus)
            assert isinstance(transport, SQLiteTransport)
            with contextlib.suppress(LookupError):
                async with Worker(bus), asyncio.timeout(TIMEOUT):
                    # Nothing shows that the event was handled.
                    while (await transport.stats(subscription)).waiting:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

    await fail_with("given up", OnError.ACKNOWLEDGE_AND_LOG)
    await fail_with("delayed", OnError.SHUTDOWN)

    code, _, said = command(*MOVE)

    assert (code, "Moved 1 event and 1 dead letter." in said) == (0, True), said
    assert await waiting_in(tmp_path / "new.db") == [("delayed", 2)]
    assert await dead_in(tmp_path / "new.db") == [("given up", "no given up")]
    assert await dead_in(tmp_path / "old.db") == []


async def test_a_move_that_is_killed_again_and_again_loses_nothing(
    command: Command, tmp_path: Path
) -> None:
    names = {str(number) for number in range(3000)}
    await fire(tmp_path / "old.db", *names, at_once=True)

    kills = 0
    async with bus_on(tmp_path / "new.db") as bus:
        listen(bus, lambda username: None)
        transport, subscription = await transport_and_queue(bus)
        assert isinstance(transport, SQLiteTransport)
        await transport.declare(subscription, timeout=TIMEOUT)
        while kills < 6:
            before, process = await transport.stats(subscription), command.start(*MOVE)
            # A move that is killed before it moves anything can lose nothing.
            while process.poll() is None:
                if await transport.stats(subscription) != before:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0, 0.05))
            if process.poll() is not None:
                break
            process.kill()
            process.wait(TIMEOUT)
            kills += 1
    code, _, said = command(*MOVE)

    assert code == 0, said
    moved = [name for name, _ in await waiting_in(tmp_path / "new.db")]
    assert set(moved) == names
    # Events that were in flight when a move was killed are there twice. They are few.
    assert 0 <= len(moved) - len(names) <= kills * 64
    assert kills > 0


async def test_a_move_that_is_stopped_leaves_the_other_events_for_the_next(
    command: Command, tmp_path: Path
) -> None:
    await fire(tmp_path / "old.db", "ann")
    # A move waits for an event that is in flight at a worker.
    async with bus_on(tmp_path / "old.db") as bus:
        listen(bus, lambda username: None)
        transport, subscription = await transport_and_queue(bus)
        stream = await transport.subscribe(subscription)
        await anext(stream)
        process = command.start(*MOVE)
        # It handles signals once it has started.
        await eventually((tmp_path / "new.db").exists)
        await asyncio.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        code, _, said = await asyncio.to_thread(ended, process)

    assert (code, "Run the command again" in said) == (1, True), said
    code, _, said = command(*MOVE)
    assert (code, "Moved 1 event " in said) == (0, True), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("slow", SLOW.values(), ids=list(SLOW))
async def test_a_move_that_is_interrupted_before_it_starts_exits_with_1(
    command: Command, tmp_path: Path, slow: str, number: signal.Signals
) -> None:
    (tmp_path / "bus.py").write_text(BUS + "import asyncio, sys, time\n" + slow)
    process = command.start(*MOVE)
    assert process.stderr is not None
    assert await asyncio.to_thread(process.stderr.readline) == "slow\n"
    process.send_signal(number)
    code, _, said = await asyncio.to_thread(ended, process)

    assert code == 1
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "target", "outcome"),
    [
        ({"memory": {}}, None, (1, "needs SharedBroker, which MemoryTransport does not support")),
        (None, {"memory": {}}, (1, "needs SharedBroker, which MemoryTransport does not support")),
        (None, {"sqlite": {"path": "old.db"}}, (2, "there is nothing to move")),
        (None, {"sqlte": {}}, (2, "Did you mean 'sqlite'?")),
        (None, {"sqlite": {"path": "/dev/null/x.db"}}, (1, "cannot be used")),
    ],
    ids=["from memory", "to memory", "to where it is", "to what is unknown", "to what is unusable"],
)
async def test_an_impossible_move_is_refused_with_the_reason(
    command: Command,
    tmp_path: Path,
    source: dict[str, Any] | None,
    target: dict[str, Any] | None,
    outcome: tuple[int, str],
) -> None:
    code, told = outcome
    await fire(tmp_path / "old.db", "ann")
    for file, transport in (("old.json", source), ("new.json", target)):
        if transport:
            apis = {"default": {"event_transport": transport}}
            (tmp_path / file).write_text(json.dumps({"service_name": SERVICE, "apis": apis}))

    ended_with, _, said = command(*MOVE)

    assert (ended_with, told in said) == (code, True), said
    assert await waiting_in(tmp_path / "old.db") == [("ann", 1)]


async def test_dead_letters_do_not_move_in_a_circle(tmp_path: Path) -> None:
    def client(**files: str) -> BusClient:
        apis = {
            name: {"event_transport": {"sqlite": {"path": str(tmp_path / file)}}}
            for name, file in files.items()
        }
        return lightbus.create({"service_name": SERVICE, "apis": apis}).client

    source, target = client(a="one.db", b="two.db"), client(a="three.db", b="one.db")
    for api_name in "ba":
        source.listen_for_event(api_name, "x", lambda: None, listener_name="l")
    transport = await source.transports.transport("b").opened(timeout=TIMEOUT)
    assert isinstance(transport, SQLiteTransport)
    failure = Failure.of(
        LookupError(), listener="l", attempt=1, service_name=SERVICE, process_name="p"
    )
    message = EventMessage.create("b", "x", {})
    await transport.add_dead_letter(SERVICE, message, failure, timeout=TIMEOUT)
    move = Move(source, target)

    async with asyncio.timeout(TIMEOUT):
        await move.run()

    assert move.dead_letters == 1
    await source.close_async()
    await target.close_async()


async def test_a_move_can_be_stopped_while_a_broker_does_not_answer(tmp_path: Path) -> None:
    await fire(tmp_path / "old.db", "ann")
    source = lightbus.create(config(tmp_path / "old.db"))
    listen(source, lambda username: None)
    target = lightbus.create(config(tmp_path / "new.db"))
    move = Move(source.client, target.client)
    for bus in (source, target):
        transport = await bus.client.transports.transport("auth").opened(timeout=TIMEOUT)
        (subscription, *_) = [one.subscription(SERVICE) for one in source.client.listeners]
        await transport.declare(subscription, timeout=TIMEOUT)
    lock = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    moving = asyncio.create_task(move.run())
    # Nothing shows that the move waits for the lock.
    await asyncio.sleep(0.2)

    moving.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({moving})
    lock.close()

    assert moving.cancelled()
    await source.client.close_async()
    await target.client.close_async()
    assert await waiting_in(tmp_path / "old.db") == [("ann", 1)]
