"""README.rst, run."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lightbus
from docs.conftest import FIRE, Shell
from docs.pages import ROOT, Page, Program
from docs.terminal import Terminal, environment_of_a_user, run
from lightbus import EventMessage, OnError
from lightbus.handling.tasks import ScheduledTask
from lightbus.testing import RecordingBus

PAGE = Page("README")
ADAM = {"username": "adam", "email": "adam@example.com"}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, bus: RecordingBus) -> Program:
    return Program(monkeypatch, bus=bus, lightbus=lightbus)


async def test_a_service_reacts_to_the_event_of_another(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    welcomed: list[str] = []

    def send_welcome_mail(username: str) -> None:
        welcomed.append(username)

    program = Program(monkeypatch, bus=bus, send_welcome_mail=send_welcome_mail)
    fired, listening = PAGE.block("send_welcome_mail").split("\n\n")

    await program.run(listening)
    await asyncio.to_thread(exec, fired, {"bus": bus})
    await bus.drain()

    assert welcomed == ["adam"]


@pytest.mark.timeout(240)
def test_the_quick_start_works_as_it_is_printed(tmp_path: Path, rabbitmq_url: str) -> None:
    clone = tmp_path / "clone"
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, clone, ignore=left_out)
    shutil.rmtree(clone / "examples")
    for code in (PAGE.block("# auth_service/bus.py"), PAGE.block("# other_service/bus.py")):
        path = clone / "examples" / "quickstart" / code.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True)
        path.write_text(code)
    environment = environment_of_a_user(tmp_path)
    environment["PATH"] = f"{nothing_but_python(tmp_path)}{os.pathsep}{os.defpath}"
    activate = ". .venv/bin/activate\n"

    def type_in(block: str) -> None:
        code, printed = run(block, clone, environment)
        assert code == 0, printed

    def fire_and_see() -> None:
        listening = activate + PAGE.block("other_service\nlightbus run")
        with Terminal(listening, clone, environment) as first:
            first.wait_for("Ready.")
            type_in(activate + PAGE.block("python -c"))
            first.wait_for("{'adam': 'adam@example.com'}")
            first.stop()

    type_in(PAGE.block("python3 -m venv .venv"))
    fire_and_see()

    for service in ("auth_service", "other_service"):
        config = clone / "examples" / "quickstart" / service / "lightbus.yaml"
        config.write_text(PAGE.block("${AMQP_URL}"))
    install, _, where = PAGE.block("pip install '.[rabbitmq]'").partition("\n")
    type_in(activate + install)
    assert where == "export AMQP_URL=amqp://guest:guest@localhost/\n"
    environment["AMQP_URL"] = rabbitmq_url
    fire_and_see()


def nothing_but_python(folder: Path) -> Path:
    """Return a folder for the PATH where nothing is found that was installed for the tests."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    return programs


async def test_an_event_is_fired_with_and_without_an_event_loop(
    program: Program, bus: RecordingBus
) -> None:
    blocking, awaited = PAGE.block("\n\nawait bus.").split("\n\n")

    await asyncio.to_thread(exec, blocking, {"bus": bus})
    await program.run(awaited)

    assert [message.kwargs for message in bus.fired_events("auth.user_created")] == [ADAM, ADAM]


async def test_an_event_can_be_declared_as_a_method(
    monkeypatch: pytest.MonkeyPatch, recording_bus: RecordingBus
) -> None:
    program = Program(monkeypatch, bus=recording_bus)
    declared, _, fired = PAGE.block("def user_created(self, *").rpartition("\n\n")

    await program.run(declared)
    recording_bus.client.register_api(program["AuthApi"])
    await asyncio.to_thread(exec, fired, {"bus": recording_bus, "AuthApi": program["AuthApi"]})

    recording_bus.assert_fired("auth.user_created", **ADAM)


async def test_one_listener_gets_several_events_in_their_order(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    handled: list[str] = []

    async def handle_user(event: EventMessage) -> None:
        handled.append(event.event_name)

    program = Program(monkeypatch, bus=bus, handle_user=handle_user)
    await program.run(PAGE.block("bus.client.listen_for_events("))
    await bus.auth.user_created.fire_async(**ADAM)
    await bus.auth.user_deleted.fire_async(username="adam")
    await bus.drain()

    assert handled == ["user_created", "user_deleted"]


async def test_a_worker_runs_beside_other_code(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    handled = asyncio.Event()

    async def handle() -> None:
        handled.set()

    async def serve_web_pages() -> None:
        await bus.auth.user_created.fire_async(**ADAM)
        async with asyncio.timeout(10):
            await handled.wait()

    bus.auth.user_created.listen(handle, listener_name="handle")
    program = Program(monkeypatch, bus=bus, lightbus=lightbus, serve_web_pages=serve_web_pages)

    await program.run(PAGE.block("lightbus.Worker(bus)"))

    assert handled.is_set()


async def test_tasks_are_scheduled(program: Program, bus: RecordingBus) -> None:
    await program.run(PAGE.block("bus.client.every(minutes=5)"))

    tasks = [task for task in bus.client.tasks if isinstance(task, ScheduledTask)]
    assert [task.function for task in tasks] == [program["tidy"], program["send_report"]]
    async with lightbus.Worker(bus):
        pass


async def test_on_error_is_given_to_listen(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    def handle_created() -> None: ...

    program = Program(monkeypatch, bus=bus, lightbus=lightbus, handle_created=handle_created)
    await program.run(PAGE.block("on_error=lightbus.OnError.ACKNOWLEDGE_AND_LOG"))

    (listener,) = bus.client.listeners
    assert listener.on_error is OnError.ACKNOWLEDGE_AND_LOG


async def test_a_test_of_a_program_passes(
    monkeypatch: pytest.MonkeyPatch, bus: RecordingBus
) -> None:
    async def welcome(email: str) -> None:
        await bus.mail.sent.fire_async(to=email)

    bus.auth.user_created.listen(welcome, listener_name="welcome")
    module = ModuleType("bus")
    module.bus = bus  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bus", module)
    program = Program(monkeypatch)

    await program.run(PAGE.block("async def test_a_new_user_is_welcomed"))
    await program["test_a_new_user_is_welcomed"]()


def test_the_commands_work(shell: Shell) -> None:
    status, watch, tail, fire, inspect, check, schema = PAGE.block("lightbus inspect").splitlines()

    shell.run("lightbus topology")
    with shell.start(tail) as seen, shell.start(watch) as watched:
        seen.wait_for("Ctrl-C")
        watched.wait_for("never ran")
        shell.run(fire)
        seen.wait_for('auth.user_created username="adam" email="adam@example.com"')
        seen.stop()
        watched.stop()
    assert "welcome" in shell.run(status)
    event_id = shell.fire_and_fail()
    assert "dead in shop, listener audit" in shell.run(inspect.replace("3f6c8a52", event_id[:8]))
    assert "Valid: " in shell.run(check)
    assert "https://json-schema.org/draft/2020-12/schema" in shell.run(schema)


def test_waiting_events_move_to_rabbitmq(shell: Shell, rabbitmq_url: str) -> None:
    shell.use("rabbitmq", "rabbitmq.yaml", url=rabbitmq_url)
    with shell.serving():
        pass
    shell.run(FIRE)

    shell.run(PAGE.block("lightbus move --to"))

    shell.environment["LIGHTBUS_CONFIG"] = "rabbitmq.yaml"
    with shell.serving() as worker:
        worker.wait_for("Welcome, adam!")


def test_missing_objects_at_a_broker_are_shown(shell: Shell, rabbitmq_url: str) -> None:
    shell.use("rabbitmq", url=rabbitmq_url)

    missing = shell.run(PAGE.block("lightbus topology\n"), exit_code=1)

    assert "lightbus:shop:welcome" in missing
