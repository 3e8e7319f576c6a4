"""`lightbus tail`, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lightbus
from core.apis import AuditApi, AuthApi, TicketApi
from lightbus import Bus, EventMessage

TIMEOUT = 30
BUS = """
import lightbus
bus = lightbus.create()

@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    config = {
        "service_name": "shop",
        "apis": {"default": {"event_transport": {"sqlite": {"path": str(tmp_path / "events.db")}}}},
    }
    (tmp_path / "lightbus.json").write_text(json.dumps(config))
    (tmp_path / "bus.py").write_text(BUS)
    found = lightbus.create(config)
    for api in (AuthApi, TicketApi):
        found.client.register_api(api)
    yield found
    found.client.close()


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Start]:
    """Starts `lightbus tail`; returns it once it looks."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", "tail", *args],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        assert "Ctrl-C stops." in process.stderr.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, rest


def fired(bus: Bus, username: str) -> EventMessage:
    message: EventMessage = bus.auth.user_created.fire(username=username, email="e")
    return message


def test_it_shows_what_is_fired_in_a_line(bus: Bus, tail: Start) -> None:
    process = tail()
    message = fired(bus, "añn\x1b[2J")
    line = next_line(process)
    assert "\x1b" not in line
    at, name, rest = line.split(" ", 2)
    assert (len(at), name) == (12, "auth.user_created")
    assert rest.startswith('username="añn')
    assert rest.endswith(f'email="e" {message.id} from shop\n')
    assert ended(process) == (0, "")


def test_a_sender_can_forge_no_line_and_changes_nothing_that_is_shown(
    bus: Bus, tail: Start
) -> None:
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


def test_a_reader_who_has_seen_enough_is_no_error(bus: Bus, tail: Start) -> None:
    process = tail("--format", "json")
    assert process.stdout is not None
    process.stdout.close()
    while process.poll() is None:
        fired(bus, "ann")
        time.sleep(0.05)
    assert process.returncode == 0


def test_only_what_fits_the_pattern_is_shown(bus: Bus, tail: Start) -> None:
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
    assert ended(process) == (0, "")


def test_an_api_that_only_the_pattern_names_is_shown(bus: Bus, tail: Start) -> None:
    process = tail("help_desk.ticket.*", "--format", "json")
    bus.help_desk.ticket.ticket_created.fire(title="slow")
    assert json.loads(next_line(process))["event"] == "help_desk.ticket.ticket_created"
    assert ended(process) == (0, "")


def test_what_cannot_be_shown_is_told_in_a_line(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(BUS + '    raise ValueError("no database")\n')
    process = subprocess.run(
        [sys.executable, "-m", "lightbus.cli", "tail"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (process.returncode, process.stderr) == (1, "Error: ValueError: no database\n")
