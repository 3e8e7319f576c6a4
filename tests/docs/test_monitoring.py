"""docs/monitoring.rst, run."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import urllib.request
from collections.abc import AsyncIterator
from importlib.metadata import metadata
from typing import Any

import pytest

from docs.conftest import FIRE, Shell
from docs.pages import Page, Program
from lightbus import EventMessage
from lightbus.operations.tail import Events, tail
from lightbus.testing import RecordingBus

PAGE = Page("monitoring")
PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
"""


def columns(text: str, first: str) -> list[str]:
    """Return the words of the line that begins so."""
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [first])
    return line.split()


def test_the_events_of_each_listener_are_shown(shell: Shell) -> None:
    once, watch, as_json = PAGE.block("lightbus status").splitlines()
    with shell.serving():
        pass
    shell.run(FIRE)

    shown = shell.run(once)
    assert columns(shown, "listener") == columns(PAGE.text, "listener")
    assert columns(shown, "welcome") == ["welcome", "auth", "1", "0", "0", "0", "?"]
    with shell.start(watch) as watched:
        watched.wait_for("welcome")
        watched.stop()
    assert '"waiting": 1' in shell.run(as_json)


def test_the_history_of_an_event_is_shown(shell: Shell) -> None:
    event_id = shell.fire_and_fail()

    shown = shell.run(PAGE.block("lightbus inspect").replace("3f6c8a52", event_id[:8]))

    assert shown.splitlines()[0] == f"auth.user_created {event_id}"
    assert "  dead in shop, listener audit: attempt 1, " in shown
    assert shown.endswith("builtins.KeyError: 'name'\n")


def test_events_are_shown_live(shell: Shell) -> None:
    everything, of_one_api, of_one_name = PAGE.block("lightbus tail").splitlines()
    form = re.compile(
        r'\d\d:\d\d:\d\d\.\d{3} auth\.user_created username="adam" email="adam@example\.com" '
        r"[0-9a-f-]{36} from shop"
    )
    with (
        shell.start(everything) as first,
        shell.start(of_one_api) as second,
        shell.start(of_one_name) as third,
    ):
        for terminal in (first, second, third):
            terminal.wait_for("Ctrl-C")
        shell.run(FIRE)
        for terminal in (first, second):
            terminal.wait_for(form)
            terminal.stop()
        third.stop()
        assert "user_created" not in third.printed


async def test_a_program_receives_events_live(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    looking = asyncio.Event()
    seen: asyncio.Queue[EventMessage] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def tail_that_tells(*args: Any) -> AsyncIterator[Events]:
        async with tail(*args) as events:
            looking.set()
            yield events

    program = Program(monkeypatch, bus=bus, tail=tail_that_tells, seen=seen)
    watching = asyncio.create_task(
        program.run(PAGE.block("async with tail(").replace("...", "seen.put_nowait(message)"))
    )

    async with asyncio.timeout(10):
        await looking.wait()
        fired = await bus.auth.user_created.fire_async(username="adam", email="a@x")
        assert await seen.get() == fired
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


def test_events_are_counted(shell: Shell) -> None:
    check_extra(PAGE.block("lightbus[prometheus]"))
    with (shell.folder / "bus.py").open("a") as bus_module:
        bus_module.write(PAGE.block("count_events(bus)"))

    with shell.serving("lightbus run --health-port 0 --log-format json") as worker:
        address = worker.wait_for(re.compile(r"Health endpoint: (http://\S+)/live"))[1]
        shell.run(FIRE)
        worker.wait_for("becomes a dead letter")
        worker.wait_for("Welcome, adam!")
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:  # noqa: S310
            shown = answer.read().decode()

    named = set(re.findall(r"^   \* - ``(lightbus_\w+)``", PAGE.text, re.MULTILINE))
    counted = set(re.findall(r"^# TYPE (lightbus_\w+)", shown, re.MULTILINE))
    assert named <= counted
    assert 'event="user_created",listener="audit",outcome="failed"} 1.0' in shown


def test_events_are_traced(shell: Shell) -> None:
    check_extra(PAGE.block("lightbus[opentelemetry]"))
    with (shell.folder / "bus.py").open("a") as bus_module:
        bus_module.write(PROVIDER + PAGE.block("trace_events(bus)"))

    with shell.serving() as worker:
        sent = shell.run(FIRE)
        worker.wait_for("process auth.user_created")

    assert "send auth.user_created" in sent


def check_extra(install: str) -> None:
    """Check that what a command installs is there to be installed."""
    (extra,) = re.findall(r"'lightbus\[(\w+)\]'", install)
    assert extra in (metadata("lightbus").get_all("Provides-Extra") or [])


async def test_middleware_runs_around_every_event(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus, capsys: pytest.CaptureFixture[str]
) -> None:
    await Program(monkeypatch, bus=bus, time=time).run(PAGE.block("class Timed(Middleware)"))
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")

    fired = await bus.auth.user_created.fire_async(username="adam", email="a@x")
    await bus.drain()

    assert capsys.readouterr().out.startswith(f"welcome {fired.id} 0.")
