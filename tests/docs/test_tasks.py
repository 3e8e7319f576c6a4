"""Runs the code on docs/tasks.rst."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from docs.conftest import Shell
from docs.pages import Page, Program
from lightbus import Worker

PAGE = Page("tasks")


class Stock:
    """A stock that changes once."""

    def __init__(self) -> None:
        self.is_watched = asyncio.Event()

    async def changes(self) -> AsyncIterator[str]:
        self.is_watched.set()
        yield "one"
        await asyncio.Event().wait()


async def test_tasks_are_scheduled_and_run_in_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = Stock()
    program = Program(monkeypatch, stock=stock)

    await program.run(PAGE.block("add_background_task"))

    assert [task.name for task in program["bus"].client.tasks] == [
        "tidy",
        "send_report",
        "watch_stock",
    ]
    async with Worker(program["bus"]), asyncio.timeout(10):
        await stock.is_watched.wait()


def test_tasks_and_events_run_in_separate_processes(shell: Shell) -> None:
    with (shell.folder / "bus.py").open("a") as bus_module:
        bus_module.write("@bus.client.every(days=1)\ndef tidy(): ...\n")
    only, skip = PAGE.block("--only tasks").splitlines()

    for command, told in (
        (only, r"Ready.*listeners=0.*tasks=1"),
        (skip, r"Ready.*listeners=2.*tasks=0"),
    ):
        with shell.serving(f"{command} --log-format console") as worker:
            worker.wait_for(re.compile(told))
