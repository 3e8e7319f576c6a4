"""How soon a waiting listener receives events and errors, and what waiting costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from lightbus.exceptions import TransportRefused
from sqlite.support import (
    PATIENCE,
    SUBSCRIPTION,
    TESTS,
    fork,
    forking,
    name_of,
    open_transport,
    replace,
    wait_until_watching,
)

SENDER = """
import asyncio, pathlib, random, sys, time
from sqlite.support import message, open_transport, PATIENCE

async def main():
    transport = await open_transport(pathlib.Path(sys.argv[1]))
    for _ in range(60):
        # The receiver is idle again, at a random point of its polling interval.
        await asyncio.sleep(random.uniform(0.03, 0.08))
        await transport.send(message(repr(time.monotonic())), timeout=PATIENCE)
    await transport.close()

asyncio.run(main())
"""

WAITER = """
import asyncio, json, os, pathlib, sys, time
from sqlite.support import SUBSCRIPTION, open_transport

SECONDS = 4

def sleep_equally_often():
    for _ in range(SECONDS * 50):
        time.sleep(0.02)

async def main():
    before = time.process_time()
    sleep_equally_often()
    sleeping = (time.process_time() - before) / SECONDS
    transport = await open_transport(pathlib.Path(sys.argv[1]))
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.5)
    before = time.process_time()
    await asyncio.sleep(SECONDS)
    used = (time.process_time() - before) / SECONDS
    await transport.close()
    await waiting
    print(json.dumps([used, sleeping]))

asyncio.run(main())
"""


async def test_a_waiting_process_receives_an_event_of_another_process_within_20_ms(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.db"
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    clock = asyncio.get_running_loop().time  # the same in every process of the machine
    sender = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SENDER, str(file), cwd=TESTS
    )

    took = []
    for _ in range(60):
        async with asyncio.timeout(PATIENCE):
            delivery = await anext(stream)
        took.append(clock() - float(name_of(delivery)))
        await delivery.ack()
    await sender.wait()
    await transport.close()

    assert statistics.median(took) < 0.020


def test_a_waiting_process_uses_almost_no_cpu(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WAITER, str(tmp_path / "events.db")],
        cwd=TESTS,
        capture_output=True,
        timeout=30,
        check=True,
    )

    # Shares of one core. On some virtual machines, waking up 50 times a second costs this much.
    used, used_by_sleeping = json.loads(ended.stdout)
    assert used < max(0.02, 4 * used_by_sleeping)


async def test_a_waiting_listener_fails_when_the_file_is_replaced(file: Path) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream))
    await wait_until_watching()

    await replace(file)

    with pytest.raises(TransportRefused, match="was deleted or replaced"):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await transport.close()


@forking
async def test_a_waiting_listener_fails_when_the_file_cannot_be_opened_after_a_fork(
    file: Path,
) -> None:
    transport = await open_transport(file)
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream))
    await wait_until_watching()
    with contextlib.closing(sqlite3.connect(file)) as later:
        later.execute("PRAGMA user_version = 99")

    fork()

    with pytest.raises(TransportRefused, match="created by a later version of Lightbus"):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await transport.close()
