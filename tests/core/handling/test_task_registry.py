"""Tasks are checked when they are added."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from core.support import MakeBus
from lightbus import Bus, OnError
from lightbus.exceptions import ApiError
from lightbus.handling.tasks import ScheduledTask


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus()


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda client: client.every()(print), "every 0 s. Give a period"),
        (lambda client: client.every(seconds=-1)(print), "every -1 s. Give a period"),
        (lambda client: client.every(seconds=1)("tick"), "'tick' cannot be scheduled"),
        (
            lambda client: client.every(seconds=1, on_error=OnError.RETRY)(print),
            "Give OnError.SHUTDOWN or OnError.ACKNOWLEDGE_AND_LOG",
        ),
        (
            lambda client: client.schedule("99 * * * *")(print),
            "'99 * * * *', which is not a cron expression: Bad",
        ),
        (
            lambda client: client.schedule("0 0 30 2 *")(print),
            "'0 0 30 2 *', which is not a cron expression",
        ),
        (
            lambda client: client.schedule("* * * * *", timezone="Mars/Base")(print),
            "the time zone 'Mars/Base', which cannot be used",
        ),
        (lambda client: client.schedule("* * * * *", timezone=None)(print), "zone None"),
        (lambda client: client.schedule("* * * * *", timezone="Europe")(print), "zone 'Europe'"),
        (lambda client: client.schedule(None)(print), "None, which is not a cron expression"),
        (lambda client: client.every(days=1e12), "Invalid interval"),
        (lambda client: client.every(seconds=float("nan")), "Invalid interval"),
        (lambda client: client.every(seconds=1)(len), "len() cannot be a task"),
        (lambda client: client.every(seconds=1)(generator), "it is a generator"),
        (lambda client: client.add_background_task(print), "cannot run in the background"),
        (lambda client: client.add_background_task(3), "cannot run in the background"),
    ],
)
def test_an_invalid_task_is_refused(bus: Bus, wrong: Any, said: str) -> None:
    with pytest.raises(ApiError) as raised:
        wrong(bus.client)
    assert said in str(raised.value)
    assert list(bus.client.tasks) == []


def test_the_decorators_return_the_function_unchanged(bus: Bus) -> None:
    @bus.client.every(hours=1)
    @bus.client.schedule("0 0 * * *")
    def tidy() -> str:
        return "tidied"

    assert tidy() == "tidied"
    assert [task.name for task in bus.client.tasks if isinstance(task, ScheduledTask)] == [
        "tidy"
    ] * 2


async def test_only_one_worker_can_claim_a_task(bus: Bus) -> None:
    coroutine = asyncio.sleep(0)
    bus.client.add_background_task(coroutine)
    (task,) = bus.client.tasks

    assert bus.client.tasks.claim(task)
    assert not bus.client.tasks.claim(task)
    assert list(bus.client.tasks) == []
    await coroutine
