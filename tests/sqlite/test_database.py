"""Writing to a file that is locked or full, and closing it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import attrs
import pytest

from lightbus.exceptions import TransportClosed, TransportUnavailable
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    count_waiting,
    lock_file,
    message,
    open_transport,
    run_in_small_file_system,
    wait_until_watching,
)


async def test_sending_fails_with_nothing_written_if_the_file_stays_locked(file: Path) -> None:
    transport = await open_transport(file)

    with (
        lock_file(file),
        pytest.raises(TransportUnavailable, match=r"locked by another process for 0\.3 s; nothing"),
    ):
        await transport.send(message("ann"), timeout=0.3)

    await transport.send(message("bob"), timeout=PATIENCE)
    await transport.close()
    assert await count_waiting(file) == 1


async def test_sending_waits_for_a_locked_file(file: Path) -> None:
    transport = await open_transport(file)
    with lock_file(file):
        sending = asyncio.create_task(transport.send(message("ann"), timeout=PATIENCE))
        await asyncio.wait({sending}, timeout=0.5)
        assert not sending.done()

    await sending
    await transport.close()
    assert await count_waiting(file) == 1


async def test_a_send_that_times_out_does_not_fail_another_that_still_waits(
    file: Path,
) -> None:
    transport = await open_transport(file)
    with lock_file(file):
        patient = asyncio.create_task(transport.send(message("patient"), timeout=PATIENCE))
        with pytest.raises(TransportUnavailable):
            await transport.send(message("impatient"), timeout=0.2)

    await patient
    await transport.close()
    assert await count_waiting(file) == 1


async def test_a_listener_that_waits_for_events_does_not_delay_the_timeout_of_a_send(
    file: Path,
) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    with lock_file(file):
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.05)  # until the stream waits for the lock
        with pytest.raises(TransportUnavailable, match="nothing was written"):
            async with asyncio.timeout(1.5):
                await transport.send(message("ann"), timeout=0.5)

    await transport.close()
    assert await waiting is None
    assert await count_waiting(file) == 0


async def test_the_leases_of_many_listeners_do_not_delay_the_timeout_of_a_send(
    file: Path,
) -> None:
    transport = await open_transport(file, lease=0.03)
    for number in range(30):
        await transport.subscribe(attrs.evolve(SUBSCRIPTION, listener_name=f"listener{number}"))

    with (
        lock_file(file),
        pytest.raises(TransportUnavailable, match=r"locked by another process for 0\.3 s; nothing"),
    ):
        await transport.send(message("ann"), timeout=0.3)
    await transport.close()


def test_an_event_that_does_not_fit_on_the_disk_is_not_confirmed(tmp_path: Path) -> None:
    result = run_in_small_file_system(
        tmp_path / "disk",
        """
        import asyncio, json, pathlib, sys
        from sqlite.support import *
        from lightbus.exceptions import TransportError

        folder = pathlib.Path(sys.argv[1])

        async def main():
            (folder / "ballast").write_bytes(b"x" * 4_000_000)
            transport = await open_transport(folder / "events.db")
            stored, failure = 0, None
            while failure is None:
                try:
                    await transport.send(message("x" * 20_000), timeout=5)
                    stored += 1
                except TransportError as error:
                    failure = error
            await transport.close()
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
                "error": type(failure).__name__, "text": str(failure),
            }))

        asyncio.run(main())
        """,
    )

    assert result["stored"] > 10
    assert result["waiting"] == result["stored"]
    assert result["last"] == "more"
    assert result["error"] == "TransportUnavailable"
    assert result["text"].endswith("is full.")


def test_events_are_settled_once_a_full_disk_has_space_again(tmp_path: Path) -> None:
    result = run_in_small_file_system(
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

    assert result == {"handled": list(range(1, 20)), "left": 0}


async def test_closing_removes_the_files_beside_the_database(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await wait_until_watching()
    await transport.close()
    await waiting

    with pytest.raises(TransportClosed):
        await transport.send(message("ann"), timeout=PATIENCE)
    assert [part.name for part in file.parent.iterdir()] == [file.name]


def test_threads_end_after_their_event_loop_was_closed_while_the_transport_was_open(
    tmp_path: Path,
) -> None:
    before = set(threading.enumerate())
    loop = asyncio.new_event_loop()

    async def wait_for_an_event() -> asyncio.Task[object]:
        transport = await open_transport(tmp_path / "events.db")
        stream = await transport.subscribe(SUBSCRIPTION)
        waiting = asyncio.create_task(anext(stream, None))
        await wait_until_watching()
        return waiting

    loop.run_until_complete(wait_for_an_event())
    assert len(set(threading.enumerate()) - before) == 2
    for task in (tasks := asyncio.all_tasks(loop)):
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))

    loop.close()

    deadline = time.monotonic() + PATIENCE
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
