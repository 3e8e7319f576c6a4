"""`lightbus inspect`, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightbus
from core.apis import AuthApi
from core.support import Broken
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.transport import DeadLetter

TIMEOUT = 30
BUS = """
import lightbus
bus = lightbus.create()
"""


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    default = {
        "event_transport": {"sqlite": {"path": str(tmp_path / "events.db")}},
        "retry": {"first": 100},
    }
    config = {"service_name": "shop", "apis": {"default": default, "auth": {}}}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    (tmp_path / "bus.py").write_text(BUS)
    found = lightbus.create(config)
    found.client.register_api(AuthApi)
    yield found
    found.client.close()


def inspect(folder: Path, event_id: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "lightbus.cli", "inspect", event_id],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


async def fired(bus: Bus) -> EventMessage:
    message: EventMessage = await bus.auth.user_created.fire_async(username="añn", email="[e]")
    return message


async def test_it_shows_where_an_event_is(bus: Bus, tmp_path: Path) -> None:
    def fails(username: str) -> None:
        raise Broken("oh [no]")

    bus.auth.user_created.listen(
        fails, listener_name="gives_up", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    bus.auth.user_created.listen(fails, listener_name="later", on_error=OnError.RETRY)
    message = await fired(bus)
    transport = await bus.client.opened_transport("auth")
    later = bus.client.listeners[1].subscription("shop")
    async with Worker(bus):
        letters: list[DeadLetter] = []
        while not letters or (await transport.stats(later)).delayed != 1:
            letters = [letter async for letter in transport.dead_letters("shop")]
    second = await fired(bus)
    await bus.client.close_async()

    code, shown, said = inspect(tmp_path, message.id[:8])
    assert (code, said) == (0, "")
    first, when, body, *places = shown.splitlines()
    assert first == f"auth.user_created {message.id}"
    assert when.endswith("+00:00 by shop, version 1")
    assert body == '    {"username":"añn","email":"[e]"}'
    assert [place.split(",")[0] for place in places] == [
        "  delayed in shop",
        "  dead in shop",
    ]
    assert "listener later: attempt 2, until 20" in places[0]
    assert "listener gives_up: attempt 1, 20" in places[1]
    assert places[1].endswith("core.support.Broken: oh [no]")

    code, shown, _ = inspect(tmp_path, second.id)
    assert [line.strip() for line in shown.splitlines()[3:]] == [
        "waiting in shop, listener gives_up: attempt 1",
        "waiting in shop, listener later: attempt 1",
    ]


def test_an_event_that_is_nowhere_is_not_found(bus: Bus, tmp_path: Path) -> None:
    code, shown, said = inspect(tmp_path, "3f6c8a52")
    assert (code, shown) == (1, "")
    assert said.startswith("No event 3f6c8a52 waits or is dead")


def test_too_few_characters_are_refused(bus: Bus, tmp_path: Path) -> None:
    code, _, said = inspect(tmp_path, "3f6c")
    assert (code, "give 8 characters or more" in said) == (2, True)
