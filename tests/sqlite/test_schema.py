"""The tables: their format, upgrades from earlier versions, and how space is reused."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import attrs

import lightbus
from core.apis import AuthApi
from golden_files import assert_format
from lightbus_sqlite import schema
from sqlite.support import PATIENCE, SUBSCRIPTION, message, name_of, open_transport


def test_the_schema_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    bus = lightbus.create(
        {"apis": {"default": {"event_transport": {"sqlite": {"path": str(path)}}}}}
    )
    bus.client.register_api(AuthApi)
    bus.auth.user_deleted.fire(username="ada")
    bus.client.close()

    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    pragmas = ("application_id", "user_version", "journal_mode")
    values = [f"{name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]}" for name in pragmas]
    text = ";\n\n".join(sql for (sql,) in rows.fetchall())
    connection.close()

    assert_format("sqlite.sql", f"{text};\n\n-- {', '.join(values)}\n")


async def test_a_file_with_an_earlier_schema_version_is_upgraded_and_keeps_its_events(
    file: Path,
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as earlier:
        earlier.executescript(Path(__file__).with_name("version_1.sql").read_text())

    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    delivery = await anext(stream)
    assert (delivery.message.id, delivery.message.kwargs) == ("waiting", {"n": 1})
    assert delivery.message.traceparent == ""
    await delivery.ack()
    letters = [letter async for letter in transport.dead_letters("shop")]
    assert [letter.message.id for letter in letters] == ["dead"]
    await transport.close()

    with contextlib.closing(sqlite3.connect(file)) as now:
        assert now.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    await (await open_transport(file)).close()


async def test_an_event_that_every_listener_has_handled_is_removed_and_its_space_reused(
    file: Path,
) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    sizes = []
    for _ in range(4):
        await asyncio.gather(
            *(transport.send(message("x" * 1000), timeout=PATIENCE) for _ in range(300))
        )
        for _ in range(300):
            await (await anext(stream)).ack()
        sizes.append(sum(part.stat().st_size for part in file.parent.iterdir()))
    await transport.close()

    with contextlib.closing(sqlite3.connect(file)) as database:
        (events,) = database.execute("SELECT count(*) FROM event").fetchone()
    assert events == 0
    assert sizes[-1] <= sizes[0] * 1.5


async def test_an_event_is_stored_until_the_last_listener_has_handled_it(file: Path) -> None:
    transport = await open_transport(file)
    other = attrs.evolve(SUBSCRIPTION, listener_name="other")
    await transport.declare(other, timeout=PATIENCE)
    await transport.send(message("ann"), timeout=PATIENCE)
    await (await anext(await transport.subscribe(SUBSCRIPTION))).ack()

    delivery = await anext(await transport.subscribe(other))

    assert name_of(delivery) == "ann"
    await transport.close()
