"""`lightbus run`: its log and its exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import Command, ended

MEMORY = {"service_name": "shop", "apis": {"default": {"event_transport": {"memory": {}}}}}
BUS = """
import lightbus
from lightbus import Api, Event

bus = lightbus.create()


class AuthApi(Api):
    user_deleted = Event("username")

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
"""
LISTENER = """
bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")
"""
FIRES_ON_START = """
@bus.client.on_start()
def on_start():
    bus.auth.user_deleted.fire(username="ann")
"""

Run = Callable[..., subprocess.Popen[str]]
RunToEnd = Callable[..., tuple[int, str]]


def write_files(folder: Path, bus: str | None, config: dict[str, Any]) -> None:
    """Write a bus module, if there is one, and a config file."""
    if bus is not None:
        (folder / "bus.py").write_text(bus)
    (folder / "lightbus.json").write_text(json.dumps(config))


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Run:
    """Starts `lightbus run` with this bus module and config."""

    def start(
        bus: str | None = BUS,
        *arguments: str,
        config: dict[str, Any] = MEMORY,
        **environment: str,
    ) -> subprocess.Popen[str]:
        write_files(tmp_path, bus, config)
        return command.start("run", *arguments, **environment)

    return start


@pytest.fixture
def run_to_end(command: Command, tmp_path: Path) -> RunToEnd:
    """Runs `lightbus run` where it ends by itself; returns its exit code and standard error."""

    def run(
        bus: str | None = BUS, *arguments: str, config: dict[str, Any] = MEMORY
    ) -> tuple[int, str]:
        write_files(tmp_path, bus, config)
        code, _, said = command("run", *arguments)
        return code, said

    return run


def said_until(process: subprocess.Popen[str], event: str) -> list[dict[str, Any]]:
    """Return the log lines up to the one with this text."""
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if lines[-1]["event"].startswith(event):
            return lines
    raise AssertionError(f"never said {event!r}: {lines}")


def test_the_first_log_lines_show_the_configuration_and_listeners(run: Run) -> None:
    lines = said_until(run(BUS + LISTENER), "Ready.")

    by_event = {line["event"]: line for line in lines}
    assert list(by_event) == [
        next(event for event in by_event if event.startswith("Starting Lightbus 0.")),
        "Using memory (this process's memory, named 'default').",
        "Listening.",
        "Ready. Press Ctrl-C to stop.",
    ]
    assert (lines[0]["service"], lines[0]["config"]) == ("shop", "lightbus.json")
    assert lines[1]["apis"] == "auth"
    assert (lines[2]["listener"], lines[2]["events"]) == ("gather", "auth.user_deleted")
    assert lines[2]["on_error"] == "SHUTDOWN"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_exits_with_0(run: Run, number: signal.Signals) -> None:
    process = run(BUS + LISTENER)
    said_until(process, "Ready.")
    process.send_signal(number)

    assert ended(process)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_stopped_during_the_import_of_its_bus_module_exits_with_0(
    run: Run, number: signal.Signals
) -> None:
    process = run('print("importing", flush=True)\nimport time\ntime.sleep(30)\n' + BUS)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)

    code, _, said = ended(process)

    assert (code, "Traceback" in said) == (0, False)


FORKS = {
    "a process of multiprocessing": """
child = multiprocessing.get_context("fork").Process(target=live)
child.start()
wait_until_asleep(child.pid)
os.kill(child.pid, int(username))
child.join(10)
print(child.exitcode, flush=True)
""",
    "a bare fork": """
if (child := os.fork()) == 0:
    try:
        live()
    except KeyboardInterrupt:
        os._exit(1)
wait_until_asleep(child)
os.kill(child, int(username))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""",
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("handler", ["def handle", "async def handle"])
@pytest.mark.parametrize("forks", FORKS.values(), ids=FORKS)
def test_a_signal_to_a_forked_child_ends_the_child_and_not_the_worker(
    run: Run, forks: str, handler: str, loop: str
) -> None:
    bus = f"""
import sys
if {loop!r} == "asyncio":
    sys.modules["uvloop"] = None
{BUS}
import multiprocessing, os, time
reading, writing = os.pipe()

def live():
    os.write(writing, b"x")
    time.sleep(20)

def wait_until_asleep(pid):
    # Python does not end a sleep that starts just after a signal.
    os.read(reading, 1)
    while open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.01)

{handler}(username):
    {textwrap.indent(forks, "    ")}

bus.auth.user_deleted.listen(handle, listener_name="forks")

@bus.client.on_start()
def on_start():
    for number in ({signal.SIGTERM:d}, {signal.SIGINT:d}) * 2:
        bus.auth.user_deleted.fire(username=str(number))
"""
    process = run(bus, PYTHONWARNINGS="ignore")
    assert process.stdout is not None
    codes = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGTERM)

    # Python turns SIGINT into an exception.
    assert codes == [f"{-signal.SIGTERM:d}\n", "1\n"] * 2
    assert ended(process)[0] == 0


def test_a_failing_listener_ends_the_command_with_1_and_one_traceback(run: Run) -> None:
    fails = """
def fails(username):
    raise ValueError("no database")


bus.auth.user_deleted.listen(fails, listener_name="gather")
"""
    code, _, said = ended(run(BUS + fails + FIRES_ON_START))

    assert code == 1
    assert said.count("Traceback") == 1
    assert "Stopped because a listener, a task or a hook failed: ValueError: no database" in said


@pytest.mark.parametrize("moment", ["on_start", "on_stop"])
def test_a_failing_hook_ends_the_command_with_1(run: Run, moment: str) -> None:
    fails = f"""
@bus.client.{moment}()
def fails():
    raise ValueError("no database")
"""
    process = run(BUS + fails)
    if moment == "on_stop":
        said_until(process, "Ready.")
        process.send_signal(signal.SIGTERM)
    code, _, said = ended(process)

    assert code == 1
    assert "ValueError: no database" in said


WRONG_BUS_MODULES = {
    "missing": (None, "Bus module 'bus' was not found; looked in "),
    "without a bus": ("x = 1", "has no attribute 'bus'. Add to it: bus = lightbus.create()"),
    "with another bus": ("bus = 3", "has a 'bus' that is 3."),
    "that raises": ("1 / 0", "raised ZeroDivisionError: division by zero ("),
    "that exits": ("raise SystemExit(0)", "raised SystemExit: 0 ("),
    "no Python": (
        "def",
        "raised SyntaxError: invalid syntax (bus.py, line 1) when it was imported",
    ),
    "that uses the bus wrongly": (
        "import lightbus\nbus = lightbus.create()\nbus.auth.user_created.listen(5)",
        "bus.py, line 3) when it was imported",
    ),
    "that imports what is missing": ("import not_there", "needs 'not_there', which is not"),
}


@pytest.mark.parametrize(
    ("bus", "expected"), list(WRONG_BUS_MODULES.values()), ids=list(WRONG_BUS_MODULES)
)
def test_a_wrong_bus_module_ends_the_command_with_2_and_one_line(
    run_to_end: RunToEnd, bus: str | None, expected: str
) -> None:
    code, said = run_to_end(bus)

    assert code == 2
    assert expected in json.loads(said)["event"]


WRONG_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown setting": ({"servicename": "x"}, "Did you mean 'service_name'?"),
    "an unset variable": ({"service_name": "${NOT_SET}"}, "'NOT_SET' is not set"),
    "no name": ({"service_name": "a:b"}, "Invalid service name 'a:b': the character ':'"),
    "an unknown transport": (
        {"apis": {"default": {"event_transport": {"memry": {}}}}},
        "Transport 'memry' is not installed. Did you mean 'memory'?",
    ),
    "no transport": (
        {"apis": {"default": {"event_transport": {}}}},
        "expected one transport, got none.",
    ),
}


@pytest.mark.parametrize(
    ("config", "expected"), list(WRONG_CONFIGS.values()), ids=list(WRONG_CONFIGS)
)
def test_a_wrong_config_ends_the_command_with_2_and_no_traceback(
    run_to_end: RunToEnd, config: dict[str, Any], expected: str
) -> None:
    code, said = run_to_end(BUS + LISTENER, config=config)

    assert code == 2
    assert expected in said


def test_an_error_says_how_to_install_a_missing_extra(run_to_end: RunToEnd) -> None:
    config = {"apis": {"default": {"event_transport": {"rabbitmq": {"url": "amqp://x/"}}}}}
    missing = "import sys\nsys.modules['aio_pika'] = None\n"
    code, said = run_to_end(missing + BUS, config=config)

    assert code == 2
    assert "pip install 'lightbus[rabbitmq]'" in json.loads(said)["event"]


def test_an_unreachable_broker_ends_the_command_with_1(run_to_end: RunToEnd) -> None:
    default = {
        "event_transport": {"rabbitmq": {"url": "amqp://127.0.0.1:1/"}},
        "fire_timeout": 0.3,
    }
    code, said = run_to_end(BUS + LISTENER, config={"apis": {"default": default}})

    assert code == 1
    assert "was not reached within 0.3 s" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["-1", "99999"])
def test_an_invalid_health_port_is_refused(run_to_end: RunToEnd, port: str) -> None:
    code, said = run_to_end(BUS, "--health-port", port)

    assert code == 2
    assert "0<=x<=65535" in said


def test_an_unknown_option_is_reported_with_the_near_one(run_to_end: RunToEnd) -> None:
    code, said = run_to_end(BUS, "--servce-name", "x")

    assert code == 2
    assert "--service-name" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("--bus", "elsewhere"), {}), ((), {"LIGHTBUS_MODULE": "elsewhere"})],
    ids=["option", "environment"],
)
def test_the_bus_module_can_be_named(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    (tmp_path / "elsewhere.py").write_text(BUS + LISTENER)

    said_until(run(None, *arguments, **environment), "Ready.")


def test_the_service_can_be_named_on_the_command_line(run: Run) -> None:
    lines = said_until(run(BUS, "-s", "bank", "-p", "teller-{pid}"), "Starting Lightbus")

    assert lines[0]["service"] == "bank"
    assert lines[0]["process"].startswith("teller-")


def test_without_a_config_sqlite_is_used_and_its_file_is_named(run: Run, tmp_path: Path) -> None:
    process = run(BUS + LISTENER, config={})

    lines = said_until(process, "Ready")

    file = tmp_path / ".local" / "state" / "lightbus" / "events.db"
    assert f"Using sqlite ({file})." in [line["event"] for line in lines]
    assert file.is_file()
