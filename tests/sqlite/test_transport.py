"""Opening, subscribing, sending and closing."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path

import attrs
import pytest

from core.support import eventually
from lightbus.exceptions import SendRefused, TransportClosed
from lightbus_sqlite import transport as sqlite_transport
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    lock_file,
    make_transport,
    message,
    name_of,
    open_transport,
    wait_until_watching,
)


async def test_a_new_transport_does_not_create_the_file(file: Path) -> None:
    await make_transport(file).close()

    assert not file.exists()


async def test_an_event_that_is_larger_than_a_row_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_transport, "MAX_BODY_SIZE", 100)
    transport = await open_transport(file)

    with pytest.raises(SendRefused, match="more than SQLite can hold"):
        await transport.send(message("x" * 100), timeout=PATIENCE)
    await transport.close()


async def test_subscribing_waits_for_a_locked_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus_sqlite.database.OPERATION_TIMEOUT", 0.1)
    monkeypatch.setattr("lightbus_sqlite.transport.PAUSE", 0.05)
    transport = await open_transport(file)
    with lock_file(file):
        subscribing = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
        await asyncio.wait({subscribing}, timeout=0.5)
        assert not subscribing.done()

    await (await subscribing).aclose()
    await transport.close()


async def test_subscribing_fails_if_the_transport_is_closed_meanwhile(file: Path) -> None:
    transport = await open_transport(file)
    subscribing = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
    await asyncio.sleep(0)

    await transport.close()

    with pytest.raises(TransportClosed):
        await subscribing


async def test_subscribing_shortens_delays_and_leases_that_a_wrong_clock_made_too_long(
    file: Path,
) -> None:
    subscription = attrs.evolve(SUBSCRIPTION, delays=frozenset({0.1}))
    transport = await open_transport(file, lease=0.5)
    await transport.send(message("delayed"), timeout=PATIENCE)
    await transport.send(message("leased"), timeout=PATIENCE)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE delivery SET available_at = ?", (time.time() + 1e9,))
        connection.execute("UPDATE delivery SET owner = 'a killed worker', begun = 1 WHERE id = 2")

    stream = await transport.subscribe(subscription)

    async with asyncio.timeout(PATIENCE):
        received = [await anext(stream), await anext(stream)]
    assert [(name_of(one), one.attempt) for one in received] == [("delayed", 1), ("leased", 2)]
    await transport.close()


async def test_closing_again_after_a_cancelled_close_waits_for_its_end(file: Path) -> None:
    before = set(threading.enumerate())
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await wait_until_watching()
    with lock_file(file):
        closing = asyncio.create_task(transport.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})

    async with asyncio.timeout(PATIENCE):
        await transport.close()
        assert await waiting is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    # A thread still runs for a moment after it has closed the file.
    await eventually(lambda: not set(threading.enumerate()) - before)


async def test_closing_waits_only_a_few_seconds_for_a_locked_file(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    await transport.send(message("ann"), timeout=PATIENCE)
    await anext(stream)
    with lock_file(file):
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.3)  # until the stream waits for the lock
        async with asyncio.timeout(6):
            await transport.close()
        assert await waiting is None
