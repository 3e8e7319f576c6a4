"""Whether a worker uses the queue of a listener, as other processes see it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import attrs
import pytest

from lightbus.message import EventMessage
from lightbus.transport.records import Subscription
from lightbus_sqlite import SQLiteTransport, presence
from lightbus_sqlite.settings import SQLiteSettings

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="old",
    api_name="auth",
    events=frozenset({"user_created"}),
    concurrency=1,
    acknowledgement_timeout=60,
    delays=frozenset(),
)


def transport_on(file: Path) -> SQLiteTransport:
    return SQLiteTransport(SQLiteSettings(path=str(file)), client_name="test")


async def test_a_worker_that_was_killed_keeps_its_queue_for_a_while_only(tmp_path: Path) -> None:
    file = tmp_path / "events.db"
    transport = transport_on(file)
    await transport.declare(SUBSCRIPTION, timeout=10)
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO consumer SELECT 'killed', id, 1.0 FROM listener")
    connection.close()

    assert await transport.remove_listener_queue("shop", "old", "auth") == 0
    await transport.close()


async def test_a_worker_that_waits_for_events_stays_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_PERIOD", 0.02)
    file = tmp_path / "events.db"
    transport = transport_on(file)
    stream = await transport.subscribe(SUBSCRIPTION)

    def expires_at() -> list[float]:
        connection = sqlite3.connect(file)
        found = [row[0] for row in connection.execute("SELECT expires_at FROM consumer")]
        connection.close()
        return found

    first = expires_at()
    async with asyncio.timeout(10):
        while expires_at() == first:  # noqa: ASYNC110 - no one tells
            await asyncio.sleep(0.02)
    await stream.aclose()
    assert expires_at() == []
    await transport.close()


async def test_a_worker_whose_queue_was_removed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "_PERIOD", 0.02)
    file = tmp_path / "events.db"
    transport = transport_on(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM listener")
    connection.close()

    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(10):
            while "The queue of a listener was removed." not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    await stream.aclose()
    await transport.close()


async def test_a_worker_whose_queue_was_removed_takes_no_events_of_a_later_listener(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.db"
    transport, other = transport_on(file), transport_on(file)
    old = await transport.subscribe(SUBSCRIPTION)
    with sqlite3.connect(file) as connection:  # as when its process stood still for minutes
        connection.execute("UPDATE consumer SET expires_at = 1.0")
    connection.close()
    await other.remove_listener_queue("shop", "old", "auth")
    new = attrs.evolve(SUBSCRIPTION, listener_name="new")
    await other.declare(new, timeout=10)
    event = EventMessage.create("auth", "user_created", {"username": "ann"})
    await other.send(event, timeout=10)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(old), 0.5)
    async with asyncio.timeout(10):
        received = await anext(await other.subscribe(new))
    assert received.message.id == event.id
    await other.close()
    await transport.close()
