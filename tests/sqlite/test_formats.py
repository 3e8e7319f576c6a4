"""The tables in an SQLite file, which programs of other versions share."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import lightbus
from core.apis import AuthApi
from golden_files import assert_format


def test_a_file_has_the_same_tables_as_ever(tmp_path: Path) -> None:
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
