"""`lightbus run --health-port`, asked as a supervisor asks."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import TIMEOUT, Command, line_with

BUS = """
import asyncio, pathlib, time
import lightbus
from lightbus import Api, Event

bus = lightbus.create({{"apis": {{"default": {{"event_transport": {transport}}}}}}})


class AuthApi(Api):
    user_deleted = Event("username")

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
{rest}
"""
LISTENER = """
bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
"""
SLOW_START = """
@bus.client.on_start()
async def on_start():
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
"""
BLOCKED = """
from lightbus.worker import health_endpoint
health_endpoint.LOOP_TIMEOUT = 0.5

async def block(username):
    time.sleep(9)

@bus.client.on_start()
async def on_start():
    bus.auth.user_deleted.listen(block, listener_name="block")
    await bus.auth.user_deleted.fire_async(username="ann")
"""

Start = Callable[..., str]


@pytest.fixture
def start(command: Command, tmp_path: Path) -> Start:
    """Starts a worker that tells its health; returns the address."""

    def run(rest: str = LISTENER, *, transport: str = '{"memory": {}}') -> str:
        (tmp_path / "bus.py").write_text(BUS.format(rest=rest, transport=transport))
        process = command.start("run", "--health-port", "0")
        entry: dict[str, str] = json.loads(line_with("Health endpoint", process.stderr))
        return entry["event"].split()[2].removesuffix("/live")

    return run


def get(url: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the answer."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - it is http
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def ready(address: str) -> dict[str, Any]:
    """Wait until it is ready; return the answer."""
    while (answer := get(f"{address}/ready"))[0] != 200:
        pass
    return answer[1]


def test_a_running_worker_is_live_and_ready(start: Start) -> None:
    address = start()

    assert ready(address) == {"ready": True, "problems": []}
    assert get(f"{address}/live") == (200, {"live": True, "problems": []})
    assert get(f"{address}/other") == (404, {"paths": ["/live", "/ready"]})


def test_a_starting_worker_is_live_and_not_ready(start: Start, tmp_path: Path) -> None:
    address = start(SLOW_START + LISTENER)

    assert get(f"{address}/live")[0] == 200
    status, answer = get(f"{address}/ready")
    assert (status, answer["ready"]) == (503, False)
    assert "starting or stopping" in answer["problems"][0]

    (tmp_path / "go").touch()
    ready(address)


def test_a_worker_whose_event_loop_is_blocked_is_not_live(start: Start) -> None:
    address = start(BLOCKED)
    status, answer = get(f"{address}/live")
    while status == 200:
        status, answer = get(f"{address}/live")

    assert (status, answer["live"]) == (503, False)
    assert "The event loop did not answer within 0.5 s" in answer["problems"][0]


def test_a_worker_whose_file_was_deleted_is_not_ready(start: Start, tmp_path: Path) -> None:
    address = start(transport='{"sqlite": {"path": "events.db"}}')
    ready(address)
    for part in tmp_path.glob("events.db*"):
        part.unlink()

    try:
        status, answer = get(f"{address}/ready")
    except OSError:
        return  # it has noticed by itself, and ended
    assert status == 503
    assert "was deleted or replaced" in answer["problems"][0] or "starting or stopping" in str(
        answer
    )


def test_a_port_in_use_ends_the_command_with_2(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(BUS.format(rest=LISTENER, transport='{"memory": {}}'))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, said = command("run", "--health-port", str(port))

    assert code == 2
    assert f"Health port {port} on 127.0.0.1 cannot be used" in said


COUNTED = (
    LISTENER
    + """
from lightbus.integrations.prometheus import count_events
count_events(bus)

@bus.client.on_start()
async def on_start():
    await bus.auth.user_deleted.fire_async(username="ann")
"""
)


def test_the_metrics_of_a_program_are_shown(start: Start) -> None:
    address = start(COUNTED)
    ready(address)
    url = f"{address}/metrics"
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - it is http
        shown = answer.read().decode()
    fired = 'lightbus_events_fired_total{api="auth",event="user_deleted",outcome="stored"} 1.0'
    assert fired in shown
    with urllib.request.urlopen(f"{url}?module=x", timeout=TIMEOUT) as answer:  # noqa: S310
        assert answer.status == 200


def test_a_program_without_metrics_shows_none(start: Start) -> None:
    assert get(f"{start()}/metrics") == (404, {"paths": ["/live", "/ready"]})
