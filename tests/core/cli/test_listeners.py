"""`lightbus listeners` and what `lightbus topology` shows of unused queues, on an SQLite file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import TIMEOUT, Command, ended
from core.apis import AuthApi
from core.support import BUS
from lightbus import Bus, Worker

UNUSED = "old on auth"


@pytest.fixture
async def bus(tmp_path: Path, config: dict[str, Any]) -> AsyncIterator[Bus]:
    """A bus with a listener that the bus module of the folder does not have, and two events."""
    (tmp_path / "bus.py").write_text(BUS)
    bus = lightbus.create(config)
    bus.client.register_api(AuthApi)
    bus.auth.user_created.listen(lambda username: None, listener_name="old")
    (listener,) = bus.client.listeners
    transport = await bus.client.transports.open("auth")
    await transport.declare(listener.subscription("shop"), timeout=TIMEOUT)
    for name in ("ann", "bob"):
        await bus.auth.user_created.fire_async(username=name, email="e")
    yield bus
    await bus.client.close_async()


def unused(command: Command) -> dict[str, str]:
    """Return the notes on queues that `lightbus topology` shows as unused, by name."""
    code, printed, said = command("topology", "--format", "json")
    assert code == 0, said
    return {one["name"]: one["note"] for one in json.loads(printed) if one["state"] == "unused"}


async def test_a_queue_that_no_listener_uses_is_shown_with_its_events(
    bus: Bus, command: Command
) -> None:
    assert unused(command) == {
        UNUSED: "Events in its queue: 2. Delete it with `lightbus listeners remove old --api auth`."
    }


async def test_a_queue_with_events_is_not_removed_without_discard(
    bus: Bus, command: Command
) -> None:
    code, _, said = command("listeners", "remove", "old", "--yes")

    assert code == 1
    assert "listener 'old' on auth is in use: it has 2 events" in said
    assert UNUSED in unused(command)


async def test_a_queue_is_removed_once_that_is_confirmed(bus: Bus, command: Command) -> None:
    remove = ("listeners", "remove", "old", "--discard")
    code, _, said = command(*remove, given="n\n")
    assert code == 1
    assert "Delete the queue of old on auth and its 2 events?" in said
    assert UNUSED in unused(command)

    code, _, said = command(*remove, given="y\n")

    assert code == 0
    assert "Deleted the queue of listener old on auth, with 2 events." in said
    assert unused(command) == {}
    code, _, said = command(*remove, "--yes")
    assert code == 1
    assert "has no queue for listener 'old'" in said


async def test_a_listener_that_a_worker_uses_is_not_removed(bus: Bus, command: Command) -> None:
    async with Worker(bus):
        process = command.start("listeners", "remove", "old", "--discard", "--yes")
        code, _, said = ended(process)

    assert code == 1
    assert "a worker uses it" in said
    assert UNUSED in unused(command)


async def test_a_listener_that_the_bus_module_has_is_not_removed(
    bus: Bus, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(
        BUS + "\nbus.auth.user_created.listen(print, listener_name='old')\n"
    )

    code, _, said = command("listeners", "remove", "old", "--api", "auth", "--discard", "--yes")

    assert code == 1
    assert "the bus module, or one of its on_start hooks, adds" in said
    assert unused(command) == {}
