"""Files that are locked, full, damaged, someone else's, or in places where they cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from lightbus.exceptions import (
    SendRefused,
    TransportClosed,
    TransportRefused,
    TransportUnavailable,
)
from lightbus_sqlite import schema
from lightbus_sqlite import stream as sqlite_stream
from lightbus_sqlite import tail as sqlite_tail
from lightbus_sqlite import transport as sqlite_transport
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    made_transport,
    message,
    name_of,
    open_transport,
)

# From 3.12 on, Python warns of every fork beside a thread. That one works is what is tested.
forking = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def fork() -> None:
    """Make a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the file as a process does that writes."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()


async def waiting_in(file: Path) -> int:
    """Return how many events wait in the file, as another process would see it."""
    transport = await open_transport(file)
    try:
        return (await transport.stats(SUBSCRIPTION)).waiting
    finally:
        await transport.close()


# Locked


async def test_a_file_that_stays_locked_takes_no_event_and_says_so(file: Path) -> None:
    transport = await open_transport(file)

    with (
        locked(file),
        pytest.raises(TransportUnavailable, match=r"locked by another process for 0\.3 s; nothing"),
    ):
        await transport.send(message("ann"), timeout=0.3)

    await transport.send(message("bob"), timeout=PATIENCE)
    await transport.close()
    assert await waiting_in(file) == 1


async def test_the_work_of_many_listeners_does_not_delay_the_answer_about_a_locked_file(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=0.03)
    for number in range(30):
        await transport.subscribe(attrs.evolve(SUBSCRIPTION, listener_name=f"listener{number}"))

    with (
        locked(file),
        pytest.raises(TransportUnavailable, match=r"locked by another process for 0\.3 s; nothing"),
    ):
        await transport.send(message("ann"), timeout=0.3)
    await transport.close()


async def test_a_file_that_is_locked_for_a_while_is_waited_for(file: Path) -> None:
    transport = await open_transport(file)
    with locked(file):
        sending = asyncio.create_task(transport.send(message("ann"), timeout=PATIENCE))
        await asyncio.wait({sending}, timeout=0.5)
        assert not sending.done()

    await sending
    await transport.close()
    assert await waiting_in(file) == 1


async def test_one_who_subscribes_waits_for_a_file_that_stays_locked(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus_sqlite.transport.OPERATION_TIMEOUT", 0.1)
    monkeypatch.setattr("lightbus_sqlite.transport.PAUSE", 0.05)
    transport = await open_transport(file)
    with locked(file):
        subscribing = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
        await asyncio.wait({subscribing}, timeout=0.5)
        assert not subscribing.done()

    await (await subscribing).aclose()
    await transport.close()


async def test_a_sender_behind_a_waiting_listener_is_told_in_time(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    with locked(file):
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.05)
        with pytest.raises(TransportUnavailable, match="nothing was written"):
            async with asyncio.timeout(1.5):
                await transport.send(message("ann"), timeout=0.5)

    await transport.close()
    assert await waiting is None
    assert await waiting_in(file) == 0


async def test_a_sender_that_gives_up_on_a_locked_file_keeps_no_other_from_waiting(
    file: Path,
) -> None:
    transport = await open_transport(file)
    with locked(file):
        patient = asyncio.create_task(transport.send(message("patient"), timeout=PATIENCE))
        with pytest.raises(TransportUnavailable):
            await transport.send(message("impatient"), timeout=0.2)

    await patient
    await transport.close()
    assert await waiting_in(file) == 1


async def test_a_listener_goes_on_when_the_lock_is_gone(file: Path) -> None:
    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)
    with locked(file):
        stream_soon = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
        await asyncio.wait({stream_soon}, timeout=0.4)

    stream = await stream_soon
    async with asyncio.timeout(PATIENCE):
        delivery = await anext(stream)
    with locked(file):
        acking = asyncio.create_task(delivery.ack())
        await asyncio.wait({acking}, timeout=0.4)
        assert not acking.done()
    await acking
    await transport.close()
    assert await waiting_in(file) == 0


# Not an event file


async def refused_for(file: Path) -> str:
    """Return what opening and using the file is refused with."""
    transport = made_transport(file)
    with pytest.raises(TransportRefused) as raised:
        await transport.open(timeout=PATIENCE)
    assert str(file) in str(raised.value)
    await transport.close()
    return str(raised.value)


async def test_a_file_that_is_no_database_is_left_alone(file: Path) -> None:
    file.write_bytes(b"my diary" * 1000)

    assert "it is not an SQLite database" in await refused_for(file)
    assert file.read_bytes() == b"my diary" * 1000


async def test_the_database_of_another_program_is_left_alone(file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE diary (entry TEXT)")
    before = file.read_bytes()

    assert "belongs to another program" in await refused_for(file)
    assert file.read_bytes() == before


async def test_a_file_of_a_later_version_is_left_alone(file: Path) -> None:
    await (await open_transport(file)).close()
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("PRAGMA user_version = 99")

    assert "made by a later version of Lightbus" in await refused_for(file)


async def test_a_file_of_an_earlier_version_is_brought_to_this_one_with_what_is_in_it(
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


async def test_a_damaged_file_is_told_and_takes_no_event(file: Path) -> None:
    transport = await open_transport(file)
    for number in range(200):
        await transport.send(message(str(number)), timeout=PATIENCE)
    await transport.close()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))

    damaged_transport = made_transport(file)
    with pytest.raises(TransportRefused, match="it is damaged"):
        await damaged_transport.declare(SUBSCRIPTION, timeout=PATIENCE)
    await damaged_transport.close()


@pytest.mark.parametrize("place", ["/dev/null/events.db", "/proc/events.db", "/", "/dev/null"])
async def test_a_place_where_no_file_can_be_is_refused(place: str) -> None:
    assert "not be used: " in await refused_for(Path(place))


async def test_an_error_is_chained_to_that_of_sqlite(file: Path) -> None:
    file.write_bytes(b"my diary" * 1000)
    transport = made_transport(file)

    with pytest.raises(TransportRefused) as raised:
        await transport.open(timeout=PATIENCE)

    assert isinstance(raised.value.__cause__, sqlite3.DatabaseError)
    await transport.close()


# Disks


def in_a_small_file_system(folder: Path, script: str) -> dict[str, Any]:
    """Run `script`, which prints JSON, where `folder` is a disk of 8 MiB."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("only Linux's unshare can make a small disk for a test")
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=8m none '{folder}'"
    ended = subprocess.run(
        ["unshare", "-rm",  # noqa: S607 - wherever it is
          "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c",
         textwrap.dedent(script), str(folder)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_a_full_disk_takes_no_event_that_it_does_not_store(tmp_path: Path) -> None:
    told = in_a_small_file_system(
        tmp_path / "disk",
        """
        import asyncio, json, pathlib, sys
        from sqlite.support import *
        from lightbus.exceptions import TransportError

        folder = pathlib.Path(sys.argv[1])

        async def main():
            (folder / "ballast").write_bytes(b"x" * 4_000_000)
            transport = await open_transport(folder / "events.db")
            stored, problem = 0, None
            while problem is None:
                try:
                    await transport.send(message("x" * 20_000), timeout=5)
                    stored += 1
                except TransportError as error:
                    problem = error
            await transport.close()
            # Room is made.
            (folder / "ballast").unlink()
            transport = await open_transport(folder / "events.db")
            waiting = (await transport.stats(SUBSCRIPTION)).waiting
            await transport.send(message("more"), timeout=5)
            stream = await transport.subscribe(SUBSCRIPTION)
            for _ in range(waiting + 1):
                delivery = await anext(stream)
                await delivery.ack()
            await transport.close()
            print(json.dumps({
                "stored": stored, "waiting": waiting, "last": name_of(delivery),
                "error": type(problem).__name__, "told": str(problem),
            }))

        asyncio.run(main())
        """,
    )

    assert told["stored"] > 10
    assert told["waiting"] == told["stored"]
    assert told["last"] == "more"
    assert told["error"] == "TransportUnavailable"
    assert told["told"].endswith("is full.")


def test_a_disk_that_is_full_while_events_are_handled_loses_none(tmp_path: Path) -> None:
    told = in_a_small_file_system(
        tmp_path / "disk",
        """
        import asyncio, json, pathlib, sys
        from sqlite.support import *
        from lightbus.exceptions import TransportError

        folder = pathlib.Path(sys.argv[1])
        ballast = folder / "ballast"

        async def main():
            transport = await open_transport(folder / "events.db", lease=0.5)
            for number in range(20):
                await transport.send(message(str(number)), timeout=5)
            stream = await transport.subscribe(SUBSCRIPTION)
            await (await anext(stream)).ack()
            with ballast.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 4096)
                except OSError:
                    pass
            handled = []
            async def handle():
                async for delivery in stream:
                    await delivery.ack()
                    handled.append(name_of(delivery))
            handling = asyncio.create_task(handle())
            await asyncio.wait({handling}, timeout=1)
            ballast.unlink()
            async with asyncio.timeout(30):
                while len(set(handled)) < 19:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1)
            handling.cancel()
            await asyncio.wait({handling})
            left = (await transport.stats(SUBSCRIPTION)).waiting
            await transport.close()
            print(json.dumps({"handled": sorted(map(int, set(handled))), "left": left}))

        asyncio.run(main())
        """,
    )

    assert told == {"handled": list(range(1, 20)), "left": 0}


def test_a_read_only_disk_is_told(tmp_path: Path) -> None:
    told = in_a_small_file_system(
        tmp_path / "disk",
        """
        import asyncio, json, pathlib, subprocess, sys
        from sqlite.support import *
        from lightbus.exceptions import TransportError

        folder = pathlib.Path(sys.argv[1])

        async def problem_with(work):
            try:
                await work
            except TransportError as error:
                return [type(error).__name__, str(error)]

        async def main():
            transport = await open_transport(folder / "events.db")
            await transport.close()
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            again = made_transport(folder / "events.db")
            other = made_transport(folder / "other.db")
            told = {
                "there": await problem_with(again.send(message("ann"), timeout=5)),
                "not there": await problem_with(other.open(timeout=5)),
            }
            await again.close()
            await other.close()
            print(json.dumps(told))

        asyncio.run(main())
        """,
    )

    assert [error for error, _ in told.values()] == ["TransportRefused"] * 2
    assert "Its folder must exist and be writable" in told["there"][1]
    assert "Its folder must be writable" in told["not there"][1]


# Room


async def test_what_every_listener_has_handled_takes_no_room(file: Path) -> None:
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


async def test_an_event_stays_until_the_last_listener_has_handled_it(file: Path) -> None:
    transport = await open_transport(file)
    other = attrs.evolve(SUBSCRIPTION, listener_name="other")
    await transport.declare(other, timeout=PATIENCE)
    await transport.send(message("ann"), timeout=PATIENCE)
    await (await anext(await transport.subscribe(SUBSCRIPTION))).ack()

    delivery = await anext(await transport.subscribe(other))

    assert name_of(delivery) == "ann"
    await transport.close()


async def test_an_event_that_is_larger_than_a_row_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_transport, "_MOST_BYTES", 100)
    transport = await open_transport(file)

    with pytest.raises(SendRefused, match="more than SQLite can hold"):
        await transport.send(message("x" * 100), timeout=PATIENCE)
    await transport.close()


# Opening and closing


async def test_the_folder_of_the_file_is_made_for_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "events.db"

    await (await open_transport(file)).close()

    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask that most systems have, with which a program's files can be read by everyone."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
async def test_nobody_else_may_read_a_file_that_the_bus_made(file: Path) -> None:
    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)

    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}

    assert modes == dict.fromkeys(("events.db", "events.db-wal", "events.db-shm"), 0o600)
    await transport.close()


@pytest.mark.usefixtures("usual_umask")
async def test_a_file_that_exists_keeps_its_mode(file: Path) -> None:
    await (await open_transport(file)).close()
    file.chmod(0o640)

    transport = await open_transport(file)
    await transport.send(message("ann"), timeout=PATIENCE)

    modes = {stat.S_IMODE(one.stat().st_mode) for one in file.parent.iterdir()}
    assert modes == {0o640}
    await transport.close()


async def test_making_a_transport_touches_nothing(file: Path) -> None:
    await made_transport(file).close()

    assert not file.exists()


async def test_a_closed_transport_leaves_no_file_beside_the_database(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.1)
    await transport.close()
    await waiting

    with pytest.raises(TransportClosed):
        await transport.send(message("ann"), timeout=PATIENCE)
    assert [part.name for part in file.parent.iterdir()] == [file.name]


async def test_many_processes_may_make_the_file_at_once(file: Path) -> None:
    script = (
        "import asyncio, sys, pathlib; from sqlite.support import open_transport, message\n"
        "async def main():\n"
        "    transport = await open_transport(pathlib.Path(sys.argv[1]))\n"
        "    await transport.send(message('x'), timeout=20)\n"
        "    await transport.close()\n"
        "asyncio.run(main())"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(file), cwd=Path(__file__).parent.parent
        )
        for _ in range(6)
    ]

    assert [await process.wait() for process in processes] == [0] * 6
    assert await waiting_in(file) == 6


async def test_many_transports_may_make_the_file_at_once(tmp_path: Path) -> None:
    for number in range(60):
        transports = [made_transport(tmp_path / f"{number}.db") for _ in range(8)]
        await asyncio.gather(*(one.open(timeout=PATIENCE) for one in transports))
        await asyncio.gather(*(one.close() for one in transports))


async def test_a_file_that_was_deleted_takes_no_event_and_says_so(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    for part in [*file.parent.iterdir()]:
        part.unlink()

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await anext(stream)
    await transport.close()


async def test_a_file_that_was_replaced_takes_no_event_and_says_so(file: Path) -> None:
    transport = await open_transport(file)
    await replace(file)

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    await transport.close()


async def test_a_listener_that_waits_is_told_that_the_file_was_replaced(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.1)

    await replace(file)

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await transport.close()


@forking
async def test_a_file_that_was_replaced_is_noticed_after_a_fork_too(file: Path) -> None:
    transport = await open_transport(file)
    await replace(file)
    fork()

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        await transport.send(message("ann"), timeout=PATIENCE)
    await transport.close()


async def replace(file: Path) -> None:
    """Put another file of events in the place of `file`."""
    for part in [*file.parent.iterdir()]:
        part.unlink()
    await (await open_transport(file)).close()


# Processes


@forking
async def test_a_fork_closes_what_is_open_and_both_go_on(file: Path) -> None:
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


@forking
async def test_a_listener_is_told_of_what_its_watcher_meets_after_a_fork(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.1)
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("PRAGMA user_version = 99")

    fork()

    with pytest.raises(TransportRefused, match="made by a later version of Lightbus"):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await transport.close()


# Cancellation


async def test_a_stop_that_was_cancelled_gives_back_what_nobody_received(file: Path) -> None:
    transport = await open_transport(file)
    await transport.send(message("a"), timeout=PATIENCE)
    await transport.send(message("b"), timeout=PATIENCE)
    stream = await transport.subscribe(SUBSCRIPTION)
    await (await anext(stream)).ack()
    stopping = asyncio.create_task(stream.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait({stopping})

    await stream.stop()

    assert (await transport.stats(SUBSCRIPTION)).waiting == 1
    delivery = await anext(await transport.subscribe(SUBSCRIPTION))
    assert (name_of(delivery), delivery.attempt) == ("b", 1)
    await transport.close()


async def test_a_close_that_was_cancelled_can_be_waited_for_again(file: Path) -> None:
    before = set(threading.enumerate())
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.1)
    with locked(file):
        closing = asyncio.create_task(transport.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})

    async with asyncio.timeout(PATIENCE):
        await transport.close()
        assert await waiting is None
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with asyncio.timeout(PATIENCE):
        # A thread that has said its last word is still there for a moment.
        while set(threading.enumerate()) - before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_closing_does_not_wait_for_long_for_a_locked_file(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    await transport.send(message("ann"), timeout=PATIENCE)
    await anext(stream)
    with locked(file):
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(6):
            await transport.close()
        assert await waiting is None


async def test_a_stream_that_comes_when_the_transport_is_closed_is_refused(file: Path) -> None:
    transport = await open_transport(file)
    subscribing = asyncio.create_task(transport.subscribe(SUBSCRIPTION))
    await asyncio.sleep(0)

    await transport.close()

    with pytest.raises(TransportClosed):
        await subscribing


async def test_what_a_write_leased_that_was_given_up_is_nobodys(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = await open_transport(file, lease=0.5)
    stream = await transport.subscribe(attrs.evolve(SUBSCRIPTION, concurrency=2))
    for number in range(30):
        await transport.send(message(str(number)), timeout=PATIENCE)
    held = await anext(stream)  # so that leases are renewed
    monkeypatch.setattr(sqlite_stream, "OPERATION_TIMEOUT", 0.3)
    monkeypatch.setattr(sqlite_stream, "PAUSE", 0.1)
    received = 1
    with locked(file):
        # What is given up meanwhile must not be done when the lock is gone.
        patient = asyncio.create_task(transport.send(message("30"), timeout=PATIENCE))
        await asyncio.sleep(1)
    await patient

    async with asyncio.timeout(PATIENCE):
        while received < 31:
            await (await anext(stream)).ack()
            received += 1
    await held.ack()
    assert (await transport.stats(SUBSCRIPTION)).taken == 0
    await transport.close()


async def test_what_a_clock_that_was_far_ahead_put_off_is_brought_forward_at_the_next_start(
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
        came = [await anext(stream), await anext(stream)]
    assert [(name_of(one), one.attempt) for one in came] == [("delayed", 1), ("leased", 2)]
    await transport.close()


# Looking at events as they come


async def test_who_does_not_read_what_he_wants_to_see_holds_up_nobody_and_fills_no_disk(
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


async def test_what_one_wanted_to_see_who_was_killed_is_removed(file: Path) -> None:
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


async def test_one_who_stood_still_for_too_long_sees_what_comes_later(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_tail, "_LEASE", 0.2)
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


async def test_a_wish_to_see_events_that_was_cancelled_leaves_nothing_behind(file: Path) -> None:
    transport = await open_transport(file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        beginning = asyncio.create_task(transport.tail("auth"))
        await asyncio.sleep(0.3)
        beginning.cancel()
        await asyncio.sleep(0)
        other.execute("COMMIT")
    await asyncio.wait({beginning})
    await transport.close()
    with contextlib.closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM tail").fetchone() == (0,)
