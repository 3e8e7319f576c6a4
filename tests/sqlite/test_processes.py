"""Processes that share a file: how soon they notice, what waiting costs, and what a kill does."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from faults.__main__ import soak_on
from faults.disruptions import kill_producer, kill_worker
from faults.soak import Plan
from sqlite.support import PATIENCE, SUBSCRIPTION, message, name_of, open_transport

TESTS = Path(__file__).parent.parent

SENDER = """
import asyncio, pathlib, random, sys, time
from sqlite.support import message, open_transport, PATIENCE

async def main():
    transport = await open_transport(pathlib.Path(sys.argv[1]))
    for _ in range(60):
        # The receiver is idle by then, and at any point of its period.
        await asyncio.sleep(random.uniform(0.03, 0.08))
        await transport.send(message(repr(time.monotonic())), timeout=PATIENCE)
    await transport.close()

asyncio.run(main())
"""

WAITER = """
import asyncio, json, os, pathlib, sys, time
from sqlite.support import SUBSCRIPTION, open_transport

SECONDS = 4

def sleep_as_often():
    for _ in range(SECONDS * 50):
        time.sleep(0.02)

async def main():
    before = time.process_time()
    sleep_as_often()
    slept = (time.process_time() - before) / SECONDS
    transport = await open_transport(pathlib.Path(sys.argv[1]))
    stream = await transport.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.5)
    before = time.process_time()
    await asyncio.sleep(SECONDS)
    used = (time.process_time() - before) / SECONDS
    await transport.close()
    await waiting
    print(json.dumps([used, slept]))

asyncio.run(main())
"""


async def test_a_waiting_process_notices_within_20_ms_what_another_sends(tmp_path: Path) -> None:
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


def test_a_waiting_process_uses_next_to_no_cpu(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WAITER, str(tmp_path / "events.db")],
        cwd=TESTS,
        capture_output=True,
        timeout=30,
        check=True,
    )

    # Of one core, which others use at the same time. On some virtual machines it costs as much to
    # wake up fifty times a second.
    used, slept = json.loads(ended.stdout)
    assert used < max(0.02, 4 * slept)


@pytest.mark.timeout(180)
async def test_workers_that_are_killed_at_random_lose_nothing() -> None:
    faults = (kill_worker, kill_producer)
    plan = Plan(events=3000, rate=1500, faults=faults, every=0.4, seed=1, skews_clocks=False)
    async with soak_on("sqlite", plan) as soak:
        result = await soak.run()

    assert result.fired + result.unknown == 3000
    assert soak.made["kill_worker"] > 0
    assert result.kept_the_promise, str(result)
    assert result.unexplained == 0, str(result)


async def test_a_worker_that_is_slow_keeps_its_events_for_as_long_as_it_lives(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.db"
    slow = await open_transport(file, lease=0.5)
    await slow.send(message("ann"), timeout=PATIENCE)
    delivery = await anext(await slow.subscribe(SUBSCRIPTION))
    other = await open_transport(file, lease=0.5)
    stream = await other.subscribe(SUBSCRIPTION)
    waiting = asyncio.create_task(anext(stream, None))

    # Four leases: it must have been renewed, and the other one told of nothing.
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert not done
    await delivery.ack()

    assert (await other.stats(SUBSCRIPTION)).waiting == 0
    await other.close()
    assert await waiting is None
    await slow.close()


def test_the_threads_of_a_loop_that_was_closed_without_notice_end_by_themselves(
    tmp_path: Path,
) -> None:
    before = set(threading.enumerate())
    loop = asyncio.new_event_loop()

    async def begin_waiting() -> asyncio.Task[object]:
        transport = await open_transport(tmp_path / "events.db")
        stream = await transport.subscribe(SUBSCRIPTION)
        waiting = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0.1)
        return waiting

    loop.run_until_complete(begin_waiting())
    assert len(set(threading.enumerate()) - before) == 2
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.1))

    loop.close()

    deadline = time.monotonic() + PATIENCE
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
