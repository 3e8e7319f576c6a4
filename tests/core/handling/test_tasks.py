"""Scheduled tasks, and which tasks a worker runs."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from command import Command, ended
from core.support import PATIENCE, Broken, MakeBus, Received, wait_until_stopping
from lightbus import Bus, OnError, Worker
from lightbus.exceptions import CallbackExited
from lightbus.handling.tasks import ScheduledTask
from lightbus.handling.threads import HandlerThreads


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus()


async def test_a_function_runs_again_and_again_while_a_worker_does(
    bus: Bus, received: Received
) -> None:
    @bus.client.every(seconds=0.02)
    async def tick() -> None:
        received.add(asyncio.get_running_loop().time())

    async with Worker(bus):
        began = asyncio.get_running_loop().time()
        times = await received.next_ones(4)
    assert times[0] - began >= 0.015
    assert all(later - earlier >= 0.005 for earlier, later in itertools.pairwise(times))
    assert times[3] - began >= 0.07


async def test_a_sync_function_runs_in_a_thread(bus: Bus, received: Received) -> None:
    @bus.client.every(seconds=0.01)
    def tick() -> None:
        received.add(threading.current_thread())

    async with Worker(bus):
        assert await received.next() is not threading.main_thread()


async def test_a_function_may_also_run_at_the_start(bus: Bus, received: Received) -> None:
    bus.client.every(days=1, also_run_immediately=True)(lambda: received.add("ran"))
    async with Worker(bus):
        assert await received.next() == "ran"


async def test_calls_do_not_overlap_and_missed_times_are_left_out(
    bus: Bus, received: Received
) -> None:
    running = 0

    @bus.client.every(seconds=0.02)
    async def slow() -> None:
        nonlocal running
        running += 1
        received.add((running, asyncio.get_running_loop().time()))
        await asyncio.sleep(0.05)
        running -= 1

    async with Worker(bus):
        (_, first), (_, second), (most, third) = await received.next_ones(3)
    assert most == 1
    assert second - first >= 0.05
    assert third - second >= 0.05


async def test_a_function_runs_at_the_times_of_a_cron_expression(
    bus: Bus, received: Received
) -> None:
    @bus.client.schedule("* * * * * *")
    def every_second() -> None:
        received.add(datetime.now().astimezone().microsecond)

    async with Worker(bus):
        assert await received.next() < 500_000


def test_a_schedule_is_in_utc_by_default(bus: Bus) -> None:
    bus.client.schedule("0 12 * * sun")(lambda: None)
    (task,) = bus.client.tasks
    assert isinstance(task, ScheduledTask)
    due = task.next_time(0, datetime(2026, 11, 25, tzinfo=UTC).timestamp())
    assert datetime.fromtimestamp(due, UTC) == datetime(2026, 11, 29, 12, tzinfo=UTC)


async def test_a_schedule_goes_on_after_a_clock_that_was_far_ahead_is_corrected(
    received: Received,
) -> None:
    ahead = 1e9

    def clock() -> float:
        return time.time() + ahead

    async def note_the_time() -> None:
        received.add(clock())

    task = ScheduledTask(
        name="note_the_time",
        function=note_the_time,
        also_run_immediately=False,
        on_error=OnError.SHUTDOWN,
        now=clock,
        next_time=lambda _, now: now + 0.02,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(task.run(HandlerThreads(), stopping))
    wrong = await received.next()

    ahead = 0.0

    assert await received.next() < wrong
    stopping.set()
    await running


@pytest.mark.parametrize("on_error", [None, OnError.SHUTDOWN])
async def test_a_scheduled_task_that_raises_ends_the_worker(
    bus: Bus, on_error: OnError | None, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {} if on_error is None else {"on_error": on_error}

    @bus.client.every(seconds=0.01, **options)
    def fails() -> None:
        raise Broken

    with pytest.raises(Broken):
        async with asyncio.timeout(PATIENCE):
            await Worker(bus).run()
    assert "Scheduled task failed." in caplog.text


async def test_a_scheduled_task_that_raises_may_be_logged_and_run_again(
    bus: Bus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    @bus.client.every(seconds=0.01, on_error=OnError.ACKNOWLEDGE_AND_LOG)
    def fails() -> None:
        received.add("ran")
        raise Broken

    async with Worker(bus):
        await received.next_ones(2)
    assert "Scheduled task failed." in caplog.text


async def test_a_stopping_worker_lets_a_running_task_finish(bus: Bus, received: Received) -> None:
    worker = Worker(bus)

    @bus.client.every(seconds=0.01)
    async def tick() -> None:
        received.add("started")
        await wait_until_stopping(worker)
        received.add("ended")

    async with worker:
        assert await received.next() == "started"
    assert await received.next() == "ended"
    assert received.is_empty


async def test_a_second_worker_of_a_bus_runs_its_tasks_too(bus: Bus, received: Received) -> None:
    bus.client.every(days=1, also_run_immediately=True)(lambda: received.add("ran"))
    for _ in range(2):
        async with Worker(bus):
            assert await received.next() == "ran"


BUS = """
import lightbus

memory = {"default": {"event_transport": {"memory": {}}}}
bus = lightbus.create({"apis": memory}, service_name="shop")


@bus.client.every(seconds=0.05)
def tick():
    print("tick", flush=True)


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(print, listener_name="printer")
"""


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ([], {"Running.", "Listening."}),
        (["--only", "tasks"], {"Running."}),
        (["--skip", "events"], {"Running."}),
        (["--only", "events"], {"Listening."}),
        (["--skip", "tasks"], {"Listening."}),
    ],
    ids=str,
)
def test_a_process_can_be_limited_to_events_or_tasks(
    command: Command, tmp_path: Path, options: list[str], logged: set[str]
) -> None:
    (tmp_path / "bus.py").write_text(BUS)
    worker = command.start("run", *options)
    assert worker.stdout is not None
    assert worker.stderr is not None
    log = ""
    for line in worker.stderr:
        log += line
        if "Ready." in line:
            break
    if "Running." in logged:
        assert worker.stdout.readline() == "tick\n"
    worker.send_signal(signal.SIGTERM)
    code, printed, _ = ended(worker)
    assert code == 0
    assert {said for said in ("Running.", "Listening.") if said in log} == logged
    assert "Running." in logged or printed == ""


def cancelled_future() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def cancels_itself() -> None:
    await cancelled_future()


async def cancels_the_running_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(PATIENCE)


async def exits() -> None:
    sys.exit(0)


@pytest.mark.parametrize("function", [cancels_itself, cancels_the_running_task, exits])
@pytest.mark.parametrize("add", ["every", "background"])
async def test_a_task_that_is_cancelled_from_within_or_exits_has_failed(
    bus: Bus, function: Any, add: str, caplog: pytest.LogCaptureFixture
) -> None:
    if add == "every":
        bus.client.every(seconds=0.01)(function)
    else:
        bus.client.add_background_task(function)
    with pytest.raises(CallbackExited, match=f"Task '{function.__name__}' raised"):
        async with asyncio.timeout(PATIENCE):
            await Worker(bus).run()
    assert "task failed." in caplog.text


async def test_a_scheduled_task_sees_no_context_variable_of_an_earlier_call(
    bus: Bus, received: Received
) -> None:
    variable = ContextVar("variable", default="unset")

    def see() -> None:
        received.add(variable.get())
        variable.set("set")

    @bus.client.every(seconds=0.01)
    async def see_on_the_loop() -> None:
        see()

    bus.client.every(seconds=0.01)(see)
    async with Worker(bus):
        seen = [await received.next() for _ in range(6)]
    assert seen == ["unset"] * 6


async def test_a_sync_task_that_exits_has_failed(bus: Bus) -> None:
    bus.client.every(seconds=0.01)(lambda: sys.exit(0))
    with pytest.raises(CallbackExited):
        async with asyncio.timeout(PATIENCE):
            await Worker(bus).run()
