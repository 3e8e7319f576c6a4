"""`lightbus inspect`, in processes of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import Command
from core.apis import AuthApi
from core.support import Broken
from lightbus import Bus, EventMessage, OnError, Worker
from lightbus.transport.features import DeadLetter
from lightbus_sqlite import SQLiteTransport


@pytest.fixture
def bus(tmp_path: Path, config: dict[str, Any]) -> Iterator[Bus]:
    config["apis"]["default"]["retry"] = {"first": 100}
    config["apis"]["auth"] = {}
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create()\n")
    found = lightbus.create(config)
    found.client.register_api(AuthApi)
    yield found
    found.client.close()


async def fired(bus: Bus) -> EventMessage:
    message: EventMessage = await bus.auth.user_created.fire_async(username="añn", email="[e]")
    return message


async def test_the_places_of_an_event_are_shown(bus: Bus, command: Command) -> None:
    def fails(username: str) -> None:
        raise Broken("oh [no]")

    bus.auth.user_created.listen(
        fails, listener_name="gives_up", on_error=OnError.ACKNOWLEDGE_AND_LOG
    )
    bus.auth.user_created.listen(fails, listener_name="later", on_error=OnError.RETRY)
    message = await fired(bus)
    transport = await bus.client.transports.open("auth")
    assert isinstance(transport, SQLiteTransport)
    _, later = (listener.subscription("shop") for listener in bus.client.listeners)
    async with Worker(bus):
        letters: list[DeadLetter] = []
        while not letters or (await transport.stats(later)).delayed != 1:
            letters = [letter async for letter in transport.dead_letters("shop")]
    second = await fired(bus)
    await bus.client.close_async()

    code, shown, said = command("inspect", message.id[:8], TZ="UTC")
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

    code, shown, _ = command("inspect", second.id)
    assert [line.strip() for line in shown.splitlines()[3:]] == [
        "waiting in shop, listener gives_up: attempt 1",
        "waiting in shop, listener later: attempt 1",
    ]


def test_an_unknown_event_is_not_found(bus: Bus, command: Command) -> None:
    code, shown, said = command("inspect", "3f6c8a52")
    assert (code, shown) == (1, "")
    assert said.startswith("Event 3f6c8a52 not found.")


def test_an_id_prefix_that_is_too_short_is_refused(bus: Bus, command: Command) -> None:
    code, _, said = command("inspect", "3f6c")
    assert (code, "give at least 8 characters" in said) == (2, True)
