"""Runs every program of this example in its own process, on SQLite."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
SHOP = ROOT / "shop"
DEPLOYMENT = ROOT / "deployment"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a module in a directory, with a private home directory; stop it after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, *args: str) -> subprocess.Popen[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", *args],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line_with(text: str, lines: IO[str] | None) -> str:
    """Read lines until one contains `text`. The time limit of the test also limits this."""
    assert lines is not None
    return next(line for line in lines if text in line)


@pytest.fixture
def mail(start: Start) -> IO[str]:
    """The output of the mail service, which is ready."""
    worker = start(ROOT / "mail", "lightbus.cli", "run")
    line_with("Ready.", worker.stderr)
    assert worker.stdout is not None
    return worker.stdout


def address_of(server: subprocess.Popen[str], announced: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", line_with(announced, server.stderr))
    assert found is not None
    return found.group()


def post_user(address: str, name: str) -> str:
    request = urllib.request.Request(
        f"{address}/users",
        data=json.dumps({"username": name, "email": f"{name}@example.com"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 201
        return str(json.load(answer)["event"])


def test_fastapi_fires_in_a_request(start: Start, mail: IO[str]) -> None:
    server = start(SHOP, "uvicorn", "with_fastapi:app", "--port", "0")
    address = address_of(server, "running on")
    assert len(post_user(address, "fay")) == 36
    assert mail.readline() == "To fay@example.com: welcome, fay!\n"
    server.send_signal(signal.SIGINT)
    assert "Application shutdown complete" in line_with("shutdown complete", server.stderr)
    server.wait()


def test_fastapi_handles_events_beside_requests(start: Start) -> None:
    server = start(SHOP, "uvicorn", "with_fastapi_and_worker:app", "--port", "0")
    address = address_of(server, "running on")
    assert start(SHOP, "script", "gus", "g@example.com").wait() == 0
    while True:
        with urllib.request.urlopen(f"{address}/greeted", timeout=20) as answer:
            if json.load(answer) == ["gus"]:
                break
        time.sleep(0.05)
    with urllib.request.urlopen(f"{address}/ready", timeout=20) as answer:
        assert json.load(answer) == {"problems": []}
    server.send_signal(signal.SIGINT)
    line_with("shutdown complete", server.stderr)
    server.wait()


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["fork first", "import first"])
def test_flask_fires_from_the_threads_of_forked_workers(
    start: Start, mail: IO[str], options: list[str]
) -> None:
    arguments = ("--bind", "127.0.0.1:0", "--workers", "2", "--threads", "4", *options)
    server = start(SHOP, "gunicorn", *arguments, "with_flask:app")
    address = address_of(server, "Listening at")
    names = [f"user-{number}" for number in range(20)]
    for name in names:
        post_user(address, name)
    assert [mail.readline() for _ in names] == [
        f"To {name}@example.com: welcome, {name}!\n" for name in names
    ]
    server.send_signal(signal.SIGTERM)
    server.communicate()
    assert server.returncode == 0


def test_a_plain_program_fires_and_ends(start: Start, mail: IO[str]) -> None:
    program = start(SHOP, "script", "pat", "pat@example.com")
    printed, said = program.communicate()
    assert (program.returncode, len(printed.strip()), said) == (0, 36, "")
    assert mail.readline() == "To pat@example.com: welcome, pat!\n"


def test_a_cell_of_jupyter_fires(
    mail: IO[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    notebook = nbformat.read(SHOP / "notebook.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(SHOP)}}).execute()
    assert mail.readline() == "To j@example.com: welcome, jupyter!\n"


def test_the_configuration_of_all_three_leads_to_rabbitmq(tmp_path: Path) -> None:
    config = DEPLOYMENT / "lightbus.yaml"
    config_map, _ = yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text())
    assert config_map["data"]["lightbus.yaml"] == config.read_text()
    checked = subprocess.run(
        [sys.executable, "-m", "lightbus.cli", "config", "check", "--config", str(config)],
        env={"HOME": str(tmp_path), "AMQP_URL": "amqps://mail:secret@rabbitmq/", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "rabbitmq (amqps://rabbitmq:5671/)" in checked.stdout


def test_the_probes_of_kubernetes_ask_where_a_worker_answers(start: Start) -> None:
    _, deployment = yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command, *args = container["args"]
    assert command == "lightbus"
    worker = start(ROOT / "mail", "lightbus.cli", *args)
    line_with("Ready.", worker.stderr)
    (port,) = container["ports"]
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        address = f"http://127.0.0.1:{port['containerPort']}{asked['path']}"
        with urllib.request.urlopen(address, timeout=20) as answer:
            assert answer.status == 200


def test_the_health_check_of_compose_passes_where_a_worker_is_ready(start: Start) -> None:
    services = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())["services"]
    command, *args = services["mail"]["command"]
    assert command == "lightbus"
    worker = start(ROOT / "mail", "lightbus.cli", *args)
    line_with("Ready.", worker.stderr)
    _, _, *check = services["mail"]["healthcheck"]["test"]
    subprocess.run([sys.executable, *check], check=True, timeout=20)


def test_the_unit_of_systemd_starts_a_worker(start: Start) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOYMENT / "lightbus-mail.service")
    program, *args = unit["Service"]["ExecStart"].split()
    assert program.endswith("/bin/lightbus")
    worker = start(ROOT / "mail", "lightbus.cli", *args)
    line_with("Ready.", worker.stderr)
    worker.send_signal(signal.Signals[unit["Service"]["KillSignal"]])
    worker.communicate()
    assert worker.returncode == 0
