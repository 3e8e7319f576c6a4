"""Background tasks, which run until the worker stops."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest

from command import Command, ended, line_with
from core.support import PATIENCE, Broken, MakeBus, Received, eventually
from lightbus import Bus, Worker


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus()


async def test_a_background_task_runs_until_the_worker_stops(bus: Bus, received: Received) -> None:
    async def background() -> None:
        received.add("started")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            received.add("ended")

    bus.client.add_background_task(background)
    async with Worker(bus):
        assert await received.next() == "started"
        assert received.is_empty
    assert await received.next() == "ended"


async def test_a_background_task_may_be_a_coroutine_and_be_added_to_a_running_worker(
    bus: Bus, received: Received
) -> None:
    async def background(what: str) -> None:
        received.add(what)

    @bus.client.on_start()
    def on_start() -> None:
        bus.client.add_background_task(background("in a hook"))

    async with Worker(bus):
        assert await received.next() == "in a hook"
        bus.client.add_background_task(functools.partial(background, "later"))
        assert await received.next() == "later"
    assert received.is_empty


async def test_a_background_task_that_raises_ends_the_worker(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def background() -> None:
        raise Broken

    bus.client.add_background_task(background)
    with pytest.raises(Broken):
        async with asyncio.timeout(PATIENCE):
            await Worker(bus).run()
    assert "Background task failed." in caplog.text


async def test_a_coroutine_is_run_by_the_first_worker_that_runs_tasks(
    bus: Bus, received: Received
) -> None:
    async def background(what: str) -> None:
        received.add(what)

    bus.client.add_background_task(background("once"))
    async with Worker(bus):
        assert await received.next() == "once"
    bus.client.add_background_task(background("later"))
    async with Worker(bus, runs_tasks=False):
        pass
    async with Worker(bus):
        assert await received.next() == "later"
    assert received.is_empty
    assert list(bus.client.tasks) == []


async def test_a_worker_without_tasks_leaves_a_coroutine_to_another_worker(
    bus: Bus, received: Received
) -> None:
    async def background() -> None:
        received.add("ran")
        await asyncio.Event().wait()

    async with Worker(bus, runs_tasks=False), Worker(bus):
        bus.client.add_background_task(background())
        assert await received.next() == "ran"


def test_a_coroutine_that_no_worker_runs_is_closed_without_a_warning(make_bus: MakeBus) -> None:
    async def background() -> None: ...

    coroutine = background()
    bus = make_bus()
    bus.client.add_background_task(coroutine)
    (task,) = bus.client.tasks
    assert bus.client.tasks.claim(task)
    del task
    gc.collect()

    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_a_coroutine_that_is_added_while_two_workers_run_is_run_by_one(
    bus: Bus, received: Received
) -> None:
    async def background() -> None:
        received.add("once")
        await asyncio.Event().wait()

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with Worker(bus) as first, Worker(bus) as second:
        bus.client.add_background_task(background())
        assert await received.next() == "once"
        assert first.unfinished + second.unfinished == 1

    assert received.is_empty
    assert unhandled == []


async def test_coroutines_that_have_ended_are_freed(bus: Bus) -> None:
    class Work:
        async def __call__(self) -> None: ...

    references: list[weakref.ref[Any]] = []

    def add_tasks() -> None:
        for _ in range(50):
            bus.client.add_background_task(Work())
            coroutine = Work()()
            references.append(weakref.ref(coroutine))
            bus.client.add_background_task(coroutine)

    async with Worker(bus) as worker:
        add_tasks()
        await eventually(lambda: worker.unfinished == 0 and len(bus.client.tasks) == 50)
        gc.collect()
        assert [reference() for reference in references] == [None] * 50


STUBBORN = """
import asyncio
import lightbus
from lightbus.worker import running_tasks

running_tasks.CANCEL_TIMEOUT = running_tasks.CLEAN_UP_TIMEOUT = 0.1
memory = {"default": {"event_transport": {"memory": {}}}}
bus = lightbus.create({"apis": memory, "shutdown_timeout": 0.1}, service_name="shop")


@bus.client.add_background_task
async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""


def test_a_task_that_ignores_its_cancellation_does_not_keep_the_process(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(STUBBORN)
    worker = command.start("run")
    line_with("Ready.", worker.stderr)
    worker.send_signal(signal.SIGTERM)
    code, _, said = ended(worker)
    assert code == 0
    assert "did not finish in time" in said
