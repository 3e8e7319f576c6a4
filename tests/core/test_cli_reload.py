"""`lightbus run --reload`, in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

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


def line_with(text: str, lines: IO[str]) -> str:
    """Read on until a line holds `text`; the test's time limit is its patience."""
    return next(line for line in lines if text in line)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "bus.py").write_text(BUS.format(name="first"))
    with subprocess.Popen(
        [sys.executable, "-m", "lightbus.cli", "run", "--reload", "--log-format", "console"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_a_changed_file_starts_the_worker_again(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert worker.stdout is not None
    assert worker.stderr is not None
    assert "first" in line_with("Listening.", worker.stderr)
    line_with("Ready.", worker.stderr)

    (tmp_path / "notes.txt").write_text("no part of a program")
    (tmp_path / "bus.py").write_text(BUS.format(name="second"))
    assert line_with("Files have changed", worker.stderr).split("files=")[1].strip() == "bus.py"
    assert "second" in line_with("Listening.", worker.stderr)
    line_with("Ready.", worker.stderr)

    worker.send_signal(signal.SIGINT)
    assert worker.stdout.read() == "stopped first\nstopped second\n"
    assert worker.wait() == 0


def test_a_worker_that_can_not_start_is_started_again_when_its_program_is_put_right(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert worker.stderr is not None
    line_with("Ready.", worker.stderr)
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.craete()\n")
    line_with("has no attribute 'craete'", worker.stderr)
    (tmp_path / "bus.py").write_text(BUS.format(name="third"))
    assert "third" in line_with("Listening.", worker.stderr)
    worker.send_signal(signal.SIGTERM)
    worker.stderr.read()
    assert worker.wait() == 0
