"""`lightbus move`: from one SQLite file to another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from command import TIMEOUT, Command, ended
from core.operations.moves import (
    SERVICE,
    bus_on,
    config,
    dead_in,
    fire,
    listen,
    transport_and_queue,
    waiting_in,
)
from core.support import BUS, eventually
from lightbus import OnError, Worker
from lightbus_sqlite import SQLiteTransport

SLOW = {
    "import": 'print("slow", file=sys.stderr, flush=True)\ntime.sleep(30)\n',
    "hook": """
@bus.client.on_start()
async def slow():
    print("slow", file=sys.stderr, flush=True)
    await asyncio.sleep(30)
""",
}


MOVE = ("move", "--config", "old.json", "--to", "new.json")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The bus module and the two configurations that `MOVE` names."""
    (tmp_path / "bus.py").write_text(BUS)
    (tmp_path / "old.json").write_text(json.dumps(config(tmp_path / "old.db")))
    (tmp_path / "new.json").write_text(json.dumps(config(tmp_path / "new.db")))


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
    code, expected = outcome
    await fire(tmp_path / "old.db", "ann")
    for file, transport in (("old.json", source), ("new.json", target)):
        if transport:
            apis = {"default": {"event_transport": transport}}
            (tmp_path / file).write_text(json.dumps({"service_name": SERVICE, "apis": apis}))

    ended_with, _, said = command(*MOVE)

    assert (ended_with, expected in said) == (code, True), said
    assert await waiting_in(tmp_path / "old.db") == [("ann", 1)]
