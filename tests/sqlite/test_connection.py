"""Creating and opening the file, forking with it open, and losing it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightbus.exceptions import TransportRefused
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    TESTS,
    count_waiting,
    fork,
    forking,
    make_transport,
    message,
    name_of,
    open_transport,
    refusal_of,
    replace,
)


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask that most systems have, with which a program's files can be read by everyone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


async def test_only_its_user_may_read_the_directory_that_is_created(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "events.db"

    await (await open_transport(file)).close()

    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("usual_umask")
async def test_only_its_user_may_read_a_file_that_is_created(file: Path) -> None:
    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)

    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}

    assert modes == dict.fromkeys(("events.db", "events.db-wal", "events.db-shm"), 0o600)
    await transport.close()


@pytest.mark.usefixtures("usual_umask")
async def test_an_existing_file_keeps_its_mode(file: Path) -> None:
    await (await open_transport(file)).close()
    file.chmod(0o640)

    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)

    modes = {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}
    assert modes == {0o640}
    await transport.close()


async def test_processes_can_create_the_file_at_the_same_time(file: Path) -> None:
    script = (
        "import asyncio, sys, pathlib; from sqlite.support import open_transport, message\n"
        "async def main():\n"
        "    transport = await open_transport(pathlib.Path(sys.argv[1]))\n"
        "    await transport.send(message('x'), timeout=20)\n"
        "    await transport.close()\n"
        "asyncio.run(main())"
    )
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(file), cwd=TESTS)
        for _ in range(6)
    ]

    assert [await process.wait() for process in processes] == [0] * 6
    assert await count_waiting(file) == 6


async def test_transports_can_create_the_file_at_the_same_time(tmp_path: Path) -> None:
    for number in range(60):
        transports = [make_transport(tmp_path / f"{number}.db") for _ in range(8)]
        await asyncio.gather(*(one.open(timeout=PATIENCE) for one in transports))
        await asyncio.gather(*(one.close() for one in transports))


async def test_the_database_of_another_program_is_refused_and_not_changed(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE diary (entry TEXT)")
    before = file.read_bytes()

    assert "belongs to another program" in await refusal_of(file)
    assert file.read_bytes() == before


async def test_a_file_with_a_later_schema_version_is_refused(file: Path) -> None:
    await (await open_transport(file)).close()
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("PRAGMA user_version = 99")

    assert "created by a later version of Lightbus" in await refusal_of(file)


async def test_sending_and_receiving_fail_after_the_file_was_deleted(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    for part in [*file.parent.iterdir()]:
        part.unlink()

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await anext(stream)
    await transport.close()


async def test_sending_fails_after_the_file_was_replaced(file: Path) -> None:
    transport = await open_transport(file)
    await replace(file)

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    await transport.close()


@forking
async def test_sending_fails_after_the_file_was_replaced_and_the_process_forked(file: Path) -> None:
    transport = await open_transport(file)
    await replace(file)
    fork()

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    await transport.close()


@forking
async def test_a_transport_works_in_the_parent_after_a_fork(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    for number in range(20):
        waiting = asyncio.create_task(anext(stream))
        fork()
        await transport.send(message(str(number)), timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            assert name_of(await waiting) == str(number)
        await waiting.result().ack()
    await transport.close()
