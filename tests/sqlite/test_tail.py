"""Events that are stored for a tail, and their removal."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from lightbus_sqlite import tail as sqlite_tail
from sqlite.support import PATIENCE, message, open_transport


async def test_a_tail_that_is_not_read_stores_a_limited_number_of_events(
    file: Path,
) -> None:
    transport = await open_transport(file)
    events = await transport.tail("auth")
    await asyncio.gather(
        *(transport.send(message(str(number)), timeout=PATIENCE) for number in range(1_500))
    )
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM tailed_event").fetchone() == (1_000,)
    async with asyncio.timeout(PATIENCE):
        seen = [(await anext(events)).kwargs["username"] for _ in range(1_000)]
    assert seen == [str(number) for number in range(1_000)]
    await events.aclose()
    await transport.close()


async def test_the_events_of_a_tail_whose_process_was_killed_are_removed(file: Path) -> None:
    transport = await open_transport(file)
    killed = await transport.tail("auth")
    await transport.send(message("a"), timeout=PATIENCE)
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("UPDATE tail SET expires_at = 1")
        later.commit()

    await transport.send(message("b"), timeout=PATIENCE)

    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM tail").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM tailed_event").fetchone() == (0,)
    await killed.aclose()
    await transport.close()


async def test_a_tail_that_expired_while_its_process_was_suspended_continues(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tail, "LEASE", 0.2)
    transport = await open_transport(file)
    events = await transport.tail("auth")
    await transport.send(message("a"), timeout=PATIENCE)
    assert (await anext(events)).kwargs["username"] == "a"
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("DELETE FROM tail")
        later.commit()
    seeing = asyncio.ensure_future(anext(events))
    while not seeing.done():
        await transport.send(message("b"), timeout=PATIENCE)
        await asyncio.wait({seeing}, timeout=0.05)
    assert (await seeing).kwargs["username"] == "b"
    await events.aclose()
    await transport.close()


async def test_a_tail_that_was_cancelled_while_it_started_leaves_no_rows(file: Path) -> None:
    transport = await open_transport(file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        starting = asyncio.create_task(transport.tail("auth"))
        await asyncio.sleep(0.3)  # until it waits for the lock
        starting.cancel()
        await asyncio.sleep(0)
        other.execute("COMMIT")
    await asyncio.wait({starting})
    await transport.close()
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM tail").fetchone() == (0,)
