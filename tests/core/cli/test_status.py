"""`lightbus status`, in processes of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import Command, ended
from core.apis import AuthApi
from core.support import BUS, Broken
from lightbus import OnError, Worker
from lightbus.transport.features import DeadLetter
from lightbus_sqlite import SQLiteTransport


@pytest.fixture(autouse=True)
def service(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "bus.py").write_text(BUS)


async def test_the_events_of_each_listener_are_counted(
    command: Command, config: dict[str, Any]
) -> None:
    def welcome(username: str) -> None:
        raise Broken

    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)
    bus.auth.user_created.listen(
        welcome, listener_name="welcome", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    async with Worker(bus):
        await bus.auth.user_created.fire_async(username="ann", email="e")
        transport = await bus.client.transports.open("auth")
        assert isinstance(transport, SQLiteTransport)
        letters: list[DeadLetter] = []
        while not letters:
            letters = [letter async for letter in transport.dead_letters("shop")]
    await bus.auth.user_created.fire_async(username="bob", email="e")
    await bus.auth.user_created.fire_async(username="cid", email="e")
    await bus.client.close_async()

    code, printed, said = command("status", "--format", "json")
    assert (code, said) == (0, "")
    assert json.loads(printed) == [
        {
            "listener": "welcome",
            "api": "auth",
            "waiting": 2,
            "taken": 0,
            "delayed": 0,
            "dead": 1,
            "workers": None,
            "dead_in_service": 1,
        },
        {
            "listener": "clean-up",
            "api": "auth",
            "waiting": None,
            "taken": None,
            "delayed": None,
            "dead": 0,
            "workers": None,
            "dead_in_service": 1,
        },
    ]

    code, printed, said = command("status")
    assert (code, said) == (0, "")
    rows = [line.split() for line in printed.splitlines()]
    assert rows == [
        ["listener", "API", "waiting", "in", "flight", "delayed", "dead", "workers"],
        ["welcome", "auth", "2", "0", "0", "1", "?"],
        ["clean-up", "auth", "never", "ran", "?", "?", "0", "?"],
    ]


def test_watch_repeats_the_status_until_it_is_stopped(command: Command) -> None:
    process = command.start("status", "--watch", "0.1", "--format", "json")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    code, _, said = ended(process)
    assert (code, said) == (0, "")
    assert [len(json.loads(line)) for line in lines] == [2, 2, 2]


def test_without_a_terminal_the_next_table_is_printed_below(command: Command) -> None:
    process = command.start("status", "--watch", "0.1")
    assert process.stdout is not None
    lines = [process.stdout.readline().split()[:2] for _ in range(6)]
    process.send_signal(signal.SIGINT)
    code, _, said = ended(process)
    assert (code, said) == (0, "")
    assert lines == [["listener", "API"], ["welcome", "auth"], ["clean-up", "auth"]] * 2


def test_a_failing_hook_is_reported_in_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import lightbus\nbus = lightbus.create()\n"
        "@bus.client.on_start()\ndef on_start():\n    raise ValueError('no database')\n"
    )
    code, printed, said = command("status", "--bus", "failing")
    assert (code, printed, said) == (1, "", "Error: ValueError: no database\n")


def test_a_bus_without_listeners_is_reported(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("import lightbus\nbus = lightbus.create()\n")
    code, printed, _ = command("status", "--bus", "empty")
    assert (code, printed) == (
        0,
        "No listeners. Neither the bus module nor its on_start hooks add one.\n",
    )
