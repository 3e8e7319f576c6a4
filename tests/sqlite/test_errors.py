"""How errors of SQLite and of the file system are reported."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lightbus.exceptions import TransportRefused
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    make_transport,
    message,
    open_transport,
    refusal_of,
    run_in_small_file_system,
)


async def test_a_file_that_is_not_a_database_is_refused_and_not_changed(file: Path) -> None:
    file.write_bytes(b"my diary" * 1000)

    assert "it is not an SQLite database" in await refusal_of(file)
    assert file.read_bytes() == b"my diary" * 1000


async def test_a_damaged_file_is_refused(file: Path) -> None:
    transport = await open_transport(file)
    for number in range(200):
        await transport.send(message(str(number)), timeout=PATIENCE)
    await transport.close()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))

    damaged_transport = make_transport(file)
    with pytest.raises(TransportRefused, match="it is damaged"):
        await damaged_transport.declare(SUBSCRIPTION, timeout=PATIENCE)
    await damaged_transport.close()


@pytest.mark.parametrize("place", ["/dev/null/events.db", "/proc/events.db", "/", "/dev/null"])
async def test_a_path_that_cannot_be_a_regular_file_is_refused(place: str) -> None:
    assert "not be used: " in await refusal_of(Path(place))


def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    errors = run_in_small_file_system(
        tmp_path / "disk",
        """
        import asyncio, json, pathlib, subprocess, sys
        from sqlite.support import *
        from lightbus.exceptions import TransportError

        folder = pathlib.Path(sys.argv[1])

        async def error_of(work):
            try:
                await work
            except TransportError as error:
                return [type(error).__name__, str(error)]

        async def main():
            transport = await open_transport(folder / "events.db")
            await transport.close()
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            again = make_transport(folder / "events.db")
            other = make_transport(folder / "other.db")
            errors = {
                "existing": await error_of(again.send(message("ann"), timeout=5)),
                "new": await error_of(other.open(timeout=5)),
            }
            await again.close()
            await other.close()
            print(json.dumps(errors))

        asyncio.run(main())
        """,
    )

    assert [error for error, _ in errors.values()] == ["TransportRefused"] * 2
    assert "Its directory must exist and be writable" in errors["existing"][1]
    assert "Its directory must be writable" in errors["new"][1]


async def test_the_error_of_sqlite_is_the_cause_of_the_transport_error(file: Path) -> None:
    file.write_bytes(b"my diary" * 1000)
    transport = make_transport(file)

    with pytest.raises(TransportRefused) as raised:
        await transport.open(timeout=PATIENCE)

    assert isinstance(raised.value.__cause__, sqlite3.DatabaseError)
    await transport.close()
