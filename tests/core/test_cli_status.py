"""`lightbus status`, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightbus
from core.apis import AuthApi
from core.support import Broken
from lightbus import OnError, Worker
from lightbus.transport import DeadLetter

TIMEOUT = 30
BUS = """
import lightbus
bus = lightbus.create()

@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    bus.auth.user_deleted.listen(lambda username: None, listener_name="clean-up")
"""


def status(folder: Path, *args: str) -> subprocess.Popen[str]:
    (folder / "bus.py").write_text(BUS)
    return subprocess.Popen(
        [sys.executable, "-m", "lightbus.cli", "status", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int | None, str, str]:
    printed, said = process.communicate(timeout=TIMEOUT)
    return process.returncode, printed, said


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    found = {
        "service_name": "shop",
        "apis": {"default": {"event_transport": {"sqlite": {"path": str(tmp_path / "events.db")}}}},
    }
    (tmp_path / "lightbus.json").write_text(json.dumps(found))
    return found


async def test_it_shows_where_the_events_of_each_listener_are(
    tmp_path: Path, config: dict[str, Any]
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
        transport = await bus.client.opened_transport("auth")
        letters: list[DeadLetter] = []
        while not letters:
            letters = [letter async for letter in transport.dead_letters("shop")]
    await bus.auth.user_created.fire_async(username="bob", email="e")
    await bus.auth.user_created.fire_async(username="cid", email="e")
    await bus.client.close_async()

    code, printed, said = ended(status(tmp_path, "--format", "json"))
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
        },
        {
            "listener": "clean-up",
            "api": "auth",
            "waiting": None,
            "taken": None,
            "delayed": None,
            "dead": 0,
            "workers": None,
        },
    ]

    code, printed, said = ended(status(tmp_path))
    assert (code, said) == (0, "")
    rows = [line.split() for line in printed.splitlines()]
    assert rows == [
        ["listener", "API", "waiting", "taken", "delayed", "dead", "workers"],
        ["welcome", "auth", "2", "0", "0", "1", "?"],
        ["clean-up", "auth", "never", "ran", "?", "?", "0", "?"],
    ]


def test_it_looks_again_until_it_is_told_to_stop(tmp_path: Path, config: dict[str, Any]) -> None:
    with status(tmp_path, "--watch", "0.1", "--format", "json") as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            process.send_signal(signal.SIGINT)
            code, _, said = ended(process)
        finally:
            process.kill()
    assert (code, said) == (0, "")
    assert [len(json.loads(line)) for line in lines] == [2, 2, 2]


def test_a_hook_that_fails_is_told_in_a_line(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "failing.py").write_text(
        "import lightbus\nbus = lightbus.create()\n"
        "@bus.client.on_start()\ndef on_start():\n    raise ValueError('no database')\n"
    )
    code, printed, said = ended(status(tmp_path, "--bus", "failing"))
    assert (code, printed, said) == (1, "", "Error: ValueError: no database\n")


def test_it_says_where_there_are_no_listeners(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "empty.py").write_text("import lightbus\nbus = lightbus.create()\n")
    code, printed, _ = ended(status(tmp_path, "--bus", "empty"))
    assert (code, printed) == (
        0,
        "No listeners: the bus module, and its on_start hooks, add none.\n",
    )
