"""Work that is done when an event loop ends."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from lightbus.transport.loop_end import LoopEnd
from lightbus.transport.pool import new_event_loop


class Work:
    """Work that counts how often it was done, and where."""

    def __init__(self) -> None:
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def __call__(self) -> None:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())


async def test_nothing_is_done_while_the_loop_runs() -> None:
    work = Work()
    end = LoopEnd(work)
    await asyncio.sleep(0.01)

    assert work.loops == []
    end.cancel()


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, new_event_loop])
def test_work_is_awaited_on_its_loop_after_the_tasks_were_cancelled(make_loop: object) -> None:
    work = Work()
    kept: list[object] = []
    was_cancelled = False

    async def wait() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled = work.loops == []

    async def main() -> asyncio.AbstractEventLoop:
        kept.append(LoopEnd(work))
        kept.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=make_loop) as runner:  # type: ignore[arg-type]
        loop = runner.run(main())

    assert work.loops == [loop]
    assert was_cancelled


def test_cancelled_work_is_not_done() -> None:
    work = Work()

    async def main() -> LoopEnd:
        return LoopEnd(work)

    with asyncio.Runner() as runner:
        end = runner.run(main())
        thread = threading.Thread(target=end.cancel)
        thread.start()
        thread.join()
        end.cancel()

    assert work.loops == []


def test_work_that_cancels_itself_is_done_once() -> None:
    done = 0

    async def main() -> None:
        async def work() -> None:
            nonlocal done
            end.cancel()
            done += 1

        end = ends[0] = LoopEnd(work)

    ends: dict[int, LoopEnd] = {}
    asyncio.run(main())

    assert done == 1


def test_work_that_fails_is_logged_and_other_work_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work()

    async def fail() -> None:
        raise LookupError("gone")

    async def main() -> list[LoopEnd]:
        return [LoopEnd(fail), LoopEnd(work)]

    with asyncio.Runner() as runner:
        kept = runner.run(main())

    assert len(work.loops) == 1
    assert "Clean-up at the end of an event loop failed" in caplog.text
    assert len(kept) == 2


def test_work_that_is_added_after_the_end_of_its_loop_is_not_done() -> None:
    work, ends = Work(), []

    async def main() -> None:
        async def begin_late() -> None:
            ends.append(LoopEnd(work))

        ends.append(LoopEnd(begin_late))

    asyncio.run(main())
    gc.collect()

    assert len(ends) == 2
    assert work.loops == []
