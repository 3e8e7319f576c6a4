"""Work that shares a task: its limit, its context, and who cancelled it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest

from lightbus.handling.time_limit import TimeLimit, WorkCancelled

LONG = 10.0


class Late:
    """Notes of which subjects the limit was exceeded, and waits until their work has ended."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def note(self, subject: str, ended: asyncio.Event) -> None:
        self.subjects.append(subject)
        await ended.wait()


@pytest.fixture
def late() -> Late:
    return Late()


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_work_that_ends_in_time_is_in_time(late: Late) -> None:
    limit = TimeLimit(LONG, late.note)

    assert await limit.run(sleep(0), "one")
    assert await limit.run(sleep(0.01), "two")
    assert late.subjects == []
    limit.close()


async def test_an_error_of_the_work_is_raised(late: Late) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        await TimeLimit(LONG, late.note).run(fail(), "one")


async def test_work_that_is_late_is_cancelled_and_the_next_is_not(late: Late) -> None:
    limit = TimeLimit(0.05, late.note)

    assert not await limit.run(sleep(LONG), "one")
    assert await limit.run(sleep(0.01), "two")
    assert late.subjects == ["one"]
    limit.close()


@pytest.mark.parametrize("error", [None, LookupError()], ids=["nothing", "an error"])
async def test_the_result_of_late_work_after_its_cancellation_is_ignored(
    late: Late, error: Exception | None
) -> None:
    async def defy() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    assert not await TimeLimit(0.05, late.note).run(defy(), "one")


async def test_each_piece_of_work_has_the_whole_time(late: Late) -> None:
    limit = TimeLimit(0.2, late.note)

    for number in range(4):
        assert await limit.run(sleep(0.1), str(number))
    limit.close()


async def test_a_context_variable_of_one_piece_of_work_does_not_reach_the_next(late: Late) -> None:
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    async def set_to(value: str) -> None:
        seen.append(variable.get())
        variable.set(value)
        await asyncio.sleep(0)
        seen.append(variable.get())

    limit = TimeLimit(LONG, late.note)
    await limit.run(set_to("a"), "one")
    await limit.run(set_to("b"), "two")

    assert seen == ["none", "a", "none", "b"]
    assert variable.get() == "none"
    limit.close()


async def test_work_that_cancels_itself_is_distinguished_from_a_cancelled_task(late: Late) -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(LONG)

    limit = TimeLimit(LONG, late.note)
    with pytest.raises(WorkCancelled):
        await limit.run(give_up(), "one")

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await limit.run(sleep(0.01), "two")
    limit.close()


async def test_a_cancellation_after_the_end_of_the_work_has_no_effect(late: Late) -> None:
    async def cancel_and_return() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    limit = TimeLimit(LONG, late.note)

    assert await limit.run(cancel_and_return(), "one")
    await asyncio.sleep(0.01)
    limit.close()


async def test_a_cancelled_task_cancels_its_work_and_ends(late: Late) -> None:
    cancelled = asyncio.Event()
    has_started = asyncio.Event()

    async def work() -> None:
        has_started.set()
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(TimeLimit(LONG, late.note).run(work(), "one"))
    await has_started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_work_that_uncancelled_itself_can_still_be_cancelled(late: Late) -> None:
    has_started = asyncio.Event()

    async def change_its_mind() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(LONG)
        task.uncancel()
        has_started.set()
        await asyncio.sleep(LONG)

    task = asyncio.create_task(TimeLimit(LONG, late.note).run(change_its_mind(), "one"))
    await has_started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_cancelled_while_its_work_is_late_ends_too(late: Late) -> None:
    async def defy() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            defying.set()
            await asyncio.sleep(LONG)

    defying = asyncio.Event()
    task = asyncio.create_task(TimeLimit(0.05, late.note).run(defy(), "one"))
    await defying.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_within_the_work_is_not_the_time_limit(late: Late) -> None:
    ended: list[str] = []

    async def patient() -> None:
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(LONG)
        except TimeoutError:
            ended.append("timed out")

    limit = TimeLimit(LONG, late.note)

    assert await limit.run(patient(), "one")
    assert ended == ["timed out"]
    limit.close()


async def test_a_task_group_within_the_work_may_fail(late: Late) -> None:
    async def fail() -> None:
        raise LookupError

    async def several() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(sleep(LONG))

    limit = TimeLimit(LONG, late.note)

    with pytest.raises(ExceptionGroup):
        await limit.run(several(), "one")
    assert await limit.run(sleep(0.01), "two")
    limit.close()
