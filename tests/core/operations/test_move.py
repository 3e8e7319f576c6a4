"""`Move`, in a program."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import lightbus
from command import TIMEOUT
from core.operations.moves import SERVICE, config, fire, listen, waiting_in
from lightbus import EventMessage
from lightbus.client import BusClient
from lightbus.operations.move import Move
from lightbus.transport.failure import Failure
from lightbus_sqlite import SQLiteTransport


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
