"""`lightbus tail`, in processes of its own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightbus
from command import TIMEOUT, Command, ended
from core.apis import AuditApi, AuthApi, TicketApi
from core.support import BUS
from lightbus import Bus, EventMessage

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def bus(tmp_path: Path, config: dict[str, Any]) -> Iterator[Bus]:
    (tmp_path / "bus.py").write_text(BUS)
    found = lightbus.create(config)
    for api in (AuthApi, TicketApi):
        found.client.register_api(api)
    yield found
    found.client.close()


@pytest.fixture
def tail(command: Command) -> Start:
    """Starts `lightbus tail`; returns it once it looks."""

    def start(*args: str) -> subprocess.Popen[str]:
        process = command.start("tail", *args)
        assert process.stderr is not None
        assert "Press Ctrl-C to stop." in process.stderr.readline()
        return process

    return start


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def stopped(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    return ended(process)


def fired(bus: Bus, username: str) -> EventMessage:
    message: EventMessage = bus.auth.user_created.fire(username=username, email="e")
    return message


def test_each_fired_event_is_shown_in_one_line(bus: Bus, tail: Start) -> None:
    process = tail()
    message = fired(bus, "añn\x1b[2J")
    line = next_line(process)
    assert "\x1b" not in line
    at, name, rest = line.split(" ", 2)
    assert (len(at), name) == (12, "auth.user_created")
    assert rest.startswith('username="añn')
    assert rest.endswith(f'email="e" {message.id} from shop\n')
    assert stopped(process) == (0, "", "")


def test_a_sender_can_neither_forge_a_line_nor_change_the_output(bus: Bus, tail: Start) -> None:
    process = tail("audit.*")
    bus.client.register_api(AuditApi)
    bus.audit.anything.fire(
        what=":warning: [red]x\u202e", **{"a\n12:00:00.000 bank.paid amount": "b\nc"}
    )
    line = next_line(process)
    assert ":warning: [red]x" in line
    assert "\u202e" not in line
    assert "a\\n12:00:00.000 bank.paid amount" in line
    message = bus.audit.anything.fire(what=1)
    assert message.id in next_line(process)


def test_a_closed_output_ends_the_command_without_an_error(bus: Bus, tail: Start) -> None:
    process = tail("--format", "json")
    assert process.stdout is not None
    process.stdout.close()
    fired(bus, "ann")
    assert process.wait(TIMEOUT) == 0


def test_only_events_that_match_the_pattern_are_shown(bus: Bus, tail: Start) -> None:
    process = tail("auth.*_deleted", "--format", "json")
    fired(bus, "ann")
    message = bus.auth.user_deleted.fire(username="bob")
    shown: dict[str, Any] = json.loads(next_line(process))
    assert shown == {
        "event": "auth.user_deleted",
        "id": message.id,
        "fired_at": message.fired_at.isoformat(),
        "service": "shop",
        "version": 1,
        "fields": {"username": "bob"},
    }
    assert stopped(process) == (0, "", "")


def test_events_of_an_unregistered_api_are_shown(bus: Bus, tail: Start) -> None:
    process = tail("help_desk.ticket.*", "--format", "json")
    bus.help_desk.ticket.ticket_created.fire(title="slow")
    assert json.loads(next_line(process))["event"] == "help_desk.ticket.ticket_created"
    assert stopped(process) == (0, "", "")


def test_an_error_is_reported_in_one_line(bus: Bus, command: Command, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(BUS + '    raise ValueError("no database")\n')
    code, _, said = command("tail")
    assert (code, said) == (1, "Error: ValueError: no database\n")
