"""Whether a worker uses the queue of a listener, as other processes see it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from lightbus.transport import Subscription
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
