"""The same programs on every transport, with nothing changed but the configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import AUTH_API, Service

QUICK_START = Path(__file__).parent.parent / "examples" / "quickstart"

HANDLERS = """
user_db = {}


def handle_created(username, email):
    user_db[username] = email
    print(user_db)


def handle_updated(username, new_email):
    user_db[username] = new_email
    print(user_db)


def handle_deleted(username):
    user_db.pop(username)
    print(user_db)


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(handle_created, listener_name="user_created")
    bus.auth.user_updated.listen(handle_updated, listener_name="user_updated")
    bus.auth.user_deleted.listen(handle_deleted, listener_name="user_deleted")
"""
FIRING = """
    bus.auth.user_created.fire(username="adam", email="adam@example.com")
"""
OTHER_SERVICE = f"import lightbus\nbus = lightbus.create()\n{HANDLERS}"
FIRING_SERVICE = f"""{AUTH_API}

@bus.client.on_start()
def on_start():
{FIRING}
"""

AUDITED = """
class AuditApi(Api):
    noted = Event(parameters=("what",))

    class Meta:
        name = "audit"


bus.client.register_api(AuditApi)


def note(username):
    bus.audit.noted.fire(what=f"{username} was created")


def show(what):
    print(what)


@bus.client.on_start()
def on_start_too():
    bus.auth.user_created.listen(note, listener_name="note")
    bus.audit.noted.listen(show, listener_name="show")
    bus.auth.user_created.fire(username="adam", email="adam@example.com")
"""


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("rabbitmq", marks=pytest.mark.broker)],
)
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """What the configuration says below ``event_transport``."""
    match request.param:
        case "memory":
            return {"memory": {}}
        case "sqlite":
            return {"sqlite": {"path": str(tmp_path / "events.db")}}
        case _:
            return {"rabbitmq": {"url": request.getfixturevalue("rabbitmq_url")}}


def test_a_program_of_one_process_fires_and_handles(
    tmp_path: Path, transport: dict[str, Any]
) -> None:
    apis = {"default": {"event_transport": transport}}

    with Service(tmp_path / "shop", AUTH_API + HANDLERS + FIRING, apis=apis) as service:
        service.wait_for_output("{'adam': 'adam@example.com'}")
        assert service.stop() == 0


def test_two_services_in_two_processes_meet(tmp_path: Path, transport: dict[str, Any]) -> None:
    if "memory" in transport:
        return  # It is for one process, as it says itself.
    apis = {"default": {"event_transport": transport}}

    with Service(tmp_path / "other", OTHER_SERVICE, apis=apis) as other:
        with Service(tmp_path / "auth", FIRING_SERVICE, apis=apis) as auth:
            assert auth.stop() == 0
        other.wait_for_output("{'adam': 'adam@example.com'}")
        assert other.stop() == 0


@pytest.mark.parametrize(
    ("auth", "audit"),
    [("sqlite", "rabbitmq"), ("rabbitmq", "memory"), ("memory", "sqlite")],
)
def test_one_program_uses_one_transport_for_each_api(
    tmp_path: Path, rabbitmq_url: str, auth: str, audit: str
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "memory": {},
        "sqlite": {"path": str(tmp_path / "events.db")},
        "rabbitmq": {"url": rabbitmq_url},
    }
    apis = {
        "default": {"event_transport": {auth: settings[auth]}},
        "audit": {"event_transport": {audit: settings[audit]}},
    }

    with Service(tmp_path / "shop", AUTH_API + HANDLERS + AUDITED, apis=apis) as service:
        service.wait_for_output("{'adam': 'adam@example.com'}")
        service.wait_for_output("adam was created")
        used = {str(line["event"]).split()[1] for line in service.logged("Using ")}
        assert used == {auth, audit}
        assert service.stop() == 0


@pytest.mark.parametrize("arguments", [[], ["--config"]], ids=["on a file", "on RabbitMQ"])
def test_the_demo_shows_the_main_job(arguments: list[str]) -> None:
    programs = Path(sys.executable).parent

    ended = subprocess.run(
        [sys.executable, QUICK_START / "demo.py", *arguments],
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("exited with 0") == 2
    assert ended.stdout.rstrip().endswith("Done: every fired event was handled.")


def test_services_started_in_two_folders_meet_without_any_configuration(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    for name, bus in (("auth", AUTH_API), ("other", OTHER_SERVICE)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bus.py").write_text(bus)
    listening = subprocess.Popen(
        [sys.executable, "-u", "-m", "lightbus.cli", "run"],
        cwd=tmp_path / "other",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listening.stderr is not None
        assert listening.stdout is not None
        assert any("Ready." in line for line in listening.stderr)
        fire = 'from bus import bus; bus.auth.user_created.fire(username="adam", email="a@x")'
        subprocess.run(
            [sys.executable, "-c", fire],
            cwd=tmp_path / "auth",
            env=environment,
            timeout=20,
            check=True,
        )
        assert listening.stdout.readline() == "{'adam': 'a@x'}\n"
        listening.send_signal(signal.SIGINT)
        assert listening.wait(20) == 0
    finally:
        listening.kill()
        listening.communicate(timeout=20)
