"""What blocks a worker's event loop is reported by name."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from core.support import MakeBus, Received, eventually
from lightbus import Worker
from lightbus.worker import loop_watch

LIMIT = 0.2
BLOCKED = 4 * LIMIT


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watch, "LIMIT", LIMIT)
    monkeypatch.setattr(loop_watch, "PERIOD", LIMIT / 4)


async def test_an_async_handler_that_blocks_the_loop_is_named_with_the_time_and_the_remedy(
    make_bus: MakeBus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()

    async def block(username: str) -> None:
        time.sleep(BLOCKED)  # noqa: ASYNC251 - that is the fault
        received.add(username)

    bus.auth.user_deleted.listen(block, listener_name="blocks")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await received.next()
        await eventually(lambda: "for at least" in caplog.text)

    assert "Listener 'blocks' on auth has blocked the event loop for 0.2 s" in caplog.text
    assert "asyncio.to_thread" in caplog.text


async def test_a_task_that_blocks_the_loop_is_named(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()

    async def block() -> None:
        time.sleep(BLOCKED)  # noqa: ASYNC251 - that is the fault

    bus.client.every(days=1, also_run_immediately=True)(block)
    async with Worker(bus):
        await eventually(lambda: "has blocked the event loop" in caplog.text)

    assert "block" in caplog.text.partition(" has blocked")[0].rpartition("Task")[2]


async def test_handlers_that_wait_and_sync_handlers_that_block_are_not_reported(
    make_bus: MakeBus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus()

    async def wait(username: str) -> None:
        await asyncio.sleep(BLOCKED)
        received.add(username)

    def block(username: str) -> None:
        time.sleep(BLOCKED)
        received.add(username)

    bus.auth.user_deleted.listen(wait, listener_name="waits")
    bus.auth.user_deleted.listen(block, listener_name="blocks")
    async with Worker(bus):
        await bus.auth.user_deleted.fire_async(username="ann")
        await received.next_ones(2)

    assert "blocked the event loop" not in caplog.text


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "lightbus-watch"]


@pytest.mark.parametrize("is_stopped", [True, False])
def test_the_watch_ends_with_its_worker_or_its_loop(make_bus: MakeBus, *, is_stopped: bool) -> None:
    before = set(watching())
    kept: list[Worker] = []

    async def main() -> set[threading.Thread]:
        worker = Worker(make_bus())
        kept.append(worker)
        await worker.start()
        started = set(watching()) - before
        if is_stopped:
            await worker.stop()
        return started

    (thread,) = asyncio.run(main())
    thread.join(timeout=5)

    assert not thread.is_alive()
