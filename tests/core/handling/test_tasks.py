"""What a worker does beside handling events."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from command import Command, ended, line_with
from core.support import PATIENCE, Broken, MakeBus, Received, eventually
from lightbus import Bus, OnError, Worker
from lightbus.exceptions import InvalidTask, TaskExited
from lightbus.handling.tasks import ScheduledTask, at_times
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


async def test_a_function_runs_at_the_start_too_where_that_is_wanted(
    bus: Bus, received: Received
) -> None:
    bus.client.every(days=1, also_run_immediately=True)(lambda: received.add("ran"))
    async with Worker(bus):
        assert await received.next() == "ran"


async def test_calls_do_not_overlap_and_times_that_went_by_are_left_out(
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


async def test_a_schedule_goes_on_when_a_clock_that_was_far_ahead_is_put_right(
    bus: Bus, received: Received
) -> None:
    ahead = 1e9

    @bus.client.schedule("* * * * * *")
    async def every_second() -> None:
        received.add(clock())

    def clock() -> float:
        return time.time() + ahead

    (task,) = bus.client.tasks
    assert isinstance(task, ScheduledTask)
    stopping = asyncio.Event()
    running = asyncio.create_task(attrs.evolve(task, now=clock).run(HandlerThreads(), stopping))
    wrong = await received.next()

    ahead = 0.0

    assert await received.next() < wrong
    stopping.set()
    await running


def next_times(task: Any, start: str, zone: str, count: int) -> list[str]:
    now = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = []
    for _ in range(count):
        now = task.next_time(0, now)
        found.append(datetime.fromtimestamp(now, ZoneInfo(zone)).isoformat())
    return found


def test_a_schedule_keeps_to_the_clock_of_its_time_zone_when_that_is_changed(bus: Bus) -> None:
    bus.client.schedule("30 2 * * *", timezone="Europe/Berlin")(lambda: None)
    (task,) = bus.client.tasks
    assert next_times(task, "2026-03-28T00:00", "Europe/Berlin", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def calls_on(day: str, cron: str, zone: str | tzinfo) -> list[str]:
    """Return when a schedule in Berlin is called on a day, by the clocks there and their offset."""
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime.fromisoformat(day).replace(tzinfo=berlin)
    end = (begin + timedelta(days=1)).timestamp()
    task = at_times(lambda: None, cron, timezone=zone)
    found, now = [], begin.timestamp() - 1
    while (now := task.next_time(0, now)) < end:
        found.append(f"{datetime.fromtimestamp(now, berlin):%H:%M:%S%z}")
    return found


SPRING, AUTUMN = "2026-03-29", "2026-10-25"


@pytest.mark.parametrize(
    ("cron", "spring", "autumn"),
    [
        ("30 2 * * *", ["03:00:00+0200"], ["02:30:00+0200"]),
        ("0 30 2 * * *", ["03:00:00+0200"], ["02:30:00+0200"]),
        ("15 30 2 * * *", ["03:00:15+0200"], ["02:30:15+0200"]),
        (
            "5,15 30 2 * * *",
            ["03:00:05+0200", "03:00:15+0200"],
            ["02:30:05+0200", "02:30:15+0200"],
        ),
        ("0 15 2,3 * * *", ["03:00:00+0200", "03:15:00+0200"], ["02:15:00+0200", "03:15:00+0100"]),
        ("0 0 2-3 * * *", ["03:00:00+0200"], ["02:00:00+0200", "03:00:00+0100"]),
        ("10 */30 2 * * *", [], [f"02:{m}:10+0{o}00" for o in (2, 1) for m in ("00", "30")]),
        ("0 30 12 * * *", ["12:30:00+0200"], ["12:30:00+0100"]),
    ],
)
def test_a_time_with_seconds_comes_as_often_as_one_without_when_clocks_change(
    cron: str, spring: list[str], autumn: list[str]
) -> None:
    assert calls_on(SPRING, cron, "Europe/Berlin") == spring
    assert calls_on(AUTUMN, cron, "Europe/Berlin") == autumn


class LikePytz(tzinfo):
    """Has the offset of a zone's first years until `fromutc` makes another object, as pytz does."""

    def __init__(self, zone: str, offset: timedelta = timedelta(minutes=53)) -> None:
        self.zone = zone
        self._offset = offset

    def utcoffset(self, at: datetime | None) -> timedelta:
        return self._offset

    def dst(self, at: datetime | None) -> timedelta:
        return timedelta()

    def tzname(self, at: datetime | None) -> str:
        return self.zone

    def fromutc(self, at: datetime) -> datetime:
        utc = at.replace(tzinfo=UTC)
        offset = utc.astimezone(ZoneInfo(self.zone)).utcoffset() or timedelta()
        return (at + offset).replace(tzinfo=LikePytz(self.zone, offset))


class Failing(LikePytz):
    """Cannot tell an offset."""

    def utcoffset(self, at: datetime | None) -> timedelta:
        raise LookupError


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", ZoneInfo("Europe/Berlin"), LikePytz("Europe/Berlin")], ids=type
)
def test_a_time_zone_is_right_whatever_its_kind(zone: str | tzinfo) -> None:
    assert calls_on(SPRING, "30 2 * * *", zone) == ["03:00:00+0200"]
    assert calls_on("2026-07-01", "30 2 * * *", zone) == ["02:30:00+0200"]
    assert calls_on("2026-07-01", "*/30 2 * * *", zone) == ["02:00:00+0200", "02:30:00+0200"]
    assert calls_on(AUTUMN, "0 30 2 * * *", zone) == ["02:30:00+0200"]


def test_a_time_zone_with_one_offset_is_used_as_it_is() -> None:
    zone = timezone(timedelta(hours=-3))
    assert calls_on("2026-07-01", "0 4 * * *", zone) == ["09:00:00+0200"]


@pytest.mark.parametrize(
    "zone", [Failing(""), LikePytz("Mars/Base"), type("Alone", (tzinfo,), {})()], ids=repr
)
def test_a_time_zone_that_cannot_tell_its_offsets_is_refused(zone: tzinfo) -> None:
    with pytest.raises(InvalidTask, match="which cannot be used"):
        at_times(lambda: None, "30 2 * * *", timezone=zone)


def test_a_schedule_is_in_utc_where_nothing_else_is_said(bus: Bus) -> None:
    bus.client.schedule("0 12 * * sun")(lambda: None)
    (task,) = bus.client.tasks
    assert next_times(task, "2026-11-25T00:00", "UTC", 1) == ["2026-11-29T12:00:00+00:00"]


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
    assert "A scheduled task failed." in caplog.text


async def test_a_scheduled_task_that_raises_is_logged_and_runs_again_where_that_is_wanted(
    bus: Bus, received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    @bus.client.every(seconds=0.01, on_error=OnError.ACKNOWLEDGE_AND_LOG)
    def fails() -> None:
        received.add("ran")
        raise Broken

    async with Worker(bus):
        await received.next_ones(2)
    assert "A scheduled task failed." in caplog.text


async def test_a_stopping_worker_lets_a_running_task_finish(bus: Bus, received: Received) -> None:
    @bus.client.every(seconds=0.01)
    async def tick() -> None:
        received.add("began")
        await asyncio.sleep(0.1)
        received.add("ended")

    async with Worker(bus):
        assert await received.next() == "began"
    assert await received.next() == "ended"
    assert received.is_empty


async def test_a_background_task_runs_until_the_worker_stops(bus: Bus, received: Received) -> None:
    async def background() -> None:
        received.add("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            received.add("ended")

    bus.client.add_background_task(background)
    async with Worker(bus):
        assert await received.next() == "began"
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
    assert "A background task failed." in caplog.text


async def test_a_second_worker_of_a_bus_runs_its_tasks_too(bus: Bus, received: Received) -> None:
    bus.client.every(days=1, also_run_immediately=True)(lambda: received.add("ran"))
    for _ in range(2):
        async with Worker(bus):
            assert await received.next() == "ran"


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda client: client.every()(print), "every 0 s; give more than 0"),
        (lambda client: client.every(seconds=-1)(print), "every -1 s; give more than 0"),
        (lambda client: client.every(seconds=1)("tick"), "'tick' cannot be scheduled"),
        (
            lambda client: client.every(seconds=1, on_error=OnError.RETRY)(print),
            "takes OnError.SHUTDOWN or OnError.ACKNOWLEDGE_AND_LOG",
        ),
        (
            lambda client: client.schedule("99 * * * *")(print),
            "'99 * * * *', which is no time: Bad",
        ),
        (lambda client: client.schedule("0 0 30 2 *")(print), "'0 0 30 2 *', which is no time"),
        (
            lambda client: client.schedule("* * * * *", timezone="Mars/Base")(print),
            "the time zone 'Mars/Base', which cannot be used",
        ),
        (lambda client: client.schedule("* * * * *", timezone=None)(print), "zone None"),
        (lambda client: client.schedule("* * * * *", timezone="Europe")(print), "zone 'Europe'"),
        (lambda client: client.schedule(None)(print), "None, which is no time"),
        (lambda client: client.every(days=1e12), "is no length of time"),
        (lambda client: client.every(seconds=float("nan")), "is no length of time"),
        (lambda client: client.every(seconds=1)(len), "len() cannot be a task"),
        (lambda client: client.every(seconds=1)(generator), "it is a generator"),
        (lambda client: client.add_background_task(print), "cannot run in the background"),
        (lambda client: client.add_background_task(3), "cannot run in the background"),
    ],
)
def test_what_can_not_be_a_task_is_refused(bus: Bus, wrong: Any, said: str) -> None:
    with pytest.raises(InvalidTask) as raised:
        wrong(bus.client)
    assert said in str(raised.value)
    assert bus.client.tasks == ()


def test_a_decorated_function_stays_what_it_is(bus: Bus) -> None:
    @bus.client.every(hours=1)
    @bus.client.schedule("0 0 * * *")
    def tidy() -> str:
        return "tidied"

    assert tidy() == "tidied"
    assert [task.name for task in bus.client.tasks if isinstance(task, ScheduledTask)] == [
        "tidy"
    ] * 2


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
def test_a_process_can_be_given_one_kind_of_work(
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


# What tasks do to others


def test_a_schedule_never_names_a_time_that_has_gone(bus: Bus) -> None:
    bus.client.schedule("30 2 * * *", timezone="Europe/Berlin")(lambda: None)
    (task,) = bus.client.tasks
    assert isinstance(task, ScheduledTask)
    # In the hour that comes twice, the second time
    now = datetime.fromisoformat("2026-10-25T02:10:00+01:00").timestamp()
    assert datetime.fromtimestamp(
        task.next_time(0, now), ZoneInfo("Europe/Berlin")
    ).isoformat() in (
        "2026-10-25T02:30:00+01:00",
        "2026-10-26T02:30:00+01:00",
    )


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
    with pytest.raises(TaskExited, match=f"Task '{function.__name__}' raised"):
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
    with pytest.raises(TaskExited):
        async with asyncio.timeout(PATIENCE):
            await Worker(bus).run()


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
    assert bus.client.tasks == ()


async def test_a_worker_that_runs_no_tasks_leaves_a_coroutine_to_one_beside_it(
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
    assert bus.client.take_task(task)
    del task
    gc.collect()

    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_a_coroutine_that_comes_while_two_workers_run_is_run_by_one(
    bus: Bus, received: Received
) -> None:
    async def background() -> None:
        received.add("once")
        await asyncio.Event().wait()

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unhandled.append(told))
    async with Worker(bus) as first, Worker(bus) as second:
        bus.client.add_background_task(background())
        assert await received.next() == "once"
        assert first.unfinished + second.unfinished == 1

    assert received.is_empty
    assert unhandled == []


async def test_background_tasks_that_have_ended_are_forgotten(bus: Bus, received: Received) -> None:
    async with Worker(bus) as worker:
        for number in range(50):
            bus.client.add_background_task(functools.partial(asyncio.sleep, 0))
            bus.client.add_background_task(asyncio.sleep(0, number))
        await eventually(lambda: not worker._background and len(bus.client.tasks) == 50)


STUBBORN = """
import asyncio
import lightbus

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
