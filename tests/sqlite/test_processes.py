"""Processes that share a file and are killed."""

from __future__ import annotations

import pytest

from faults.__main__ import soak_on
from faults.disruptions import kill_producer, kill_worker
from faults.soak import Plan


@pytest.mark.timeout(180)
async def test_no_event_is_lost_when_processes_are_killed_at_random() -> None:
    faults = (kill_worker, kill_producer)
    plan = Plan(events=3000, rate=1500, faults=faults, every=0.4, seed=1, skews_clocks=False)
    async with soak_on("sqlite", plan) as soak:
        result = await soak.run()

    assert result.fired + result.unknown == 3000
    assert soak.made["kill_worker"] > 0
    assert result.kept_the_promise, str(result)
    assert result.unexplained == 0, str(result)
