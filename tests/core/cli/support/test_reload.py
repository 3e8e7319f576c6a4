"""`lightbus run --reload`, in processes of its own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import Command, ended, line_with

BUS = """
import lightbus

memory = {{"default": {{"event_transport": {{"memory": {{}}}}}}}}
bus = lightbus.create({{"apis": memory}}, service_name="shop")


@bus.client.on_stop()
def on_stop():
    print("stopped {name}", flush=True)


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(print, listener_name="{name}")
"""


@pytest.fixture
def worker(command: Command, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "bus.py").write_text(BUS.format(name="first"))
    process = command.start("run", "--reload", "--log-format", "console")
    yield process
    # Killed, it would leave behind the worker that it has started.
    process.terminate()
    ended(process)


def test_a_changed_file_starts_the_worker_again(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert "first" in line_with("Listening.", worker.stderr)
    line_with("Ready.", worker.stderr)

    (tmp_path / "notes.txt").write_text("no part of a program")
    (tmp_path / "bus.py").write_text(BUS.format(name="second"))
    assert line_with("Files changed", worker.stderr).split("files=")[1].strip() == "bus.py"
    assert "second" in line_with("Listening.", worker.stderr)
    line_with("Ready.", worker.stderr)

    worker.send_signal(signal.SIGINT)
    assert ended(worker)[:2] == (0, "stopped first\nstopped second\n")


def test_a_worker_that_failed_to_start_is_restarted_after_a_change(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    line_with("Ready.", worker.stderr)
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.craete()\n")
    line_with("has no attribute 'craete'", worker.stderr)
    (tmp_path / "bus.py").write_text(BUS.format(name="third"))
    assert "third" in line_with("Listening.", worker.stderr)
    worker.send_signal(signal.SIGTERM)
    assert ended(worker)[0] == 0
