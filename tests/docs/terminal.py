"""Terminals, which run the commands of a page."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import lightbus

PATIENCE = 30.0
BASH = "/bin/bash"


def environment_of_a_user(home: Path) -> dict[str, str]:
    """Return the environment of a shell in which Lightbus is installed and nothing else is set."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "COLUMNS": "200",
        "PYTHONUNBUFFERED": "1",
    }
    package = Path(lightbus.__file__).parents[1]
    if package.name != "site-packages":
        # mypy does not find an editable installation.
        environment["MYPYPATH"] = str(package)
    return environment


def run(command: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run commands until they end; return the exit code and the output."""
    ended = subprocess.run(
        [BASH, "-ec", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    return ended.returncode, ended.stdout


class Terminal:
    """Commands, the last of which runs until it is stopped, and their output."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [BASH, "-ec", re.sub("^lightbus", "exec lightbus", command, flags=re.MULTILINE)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    @property
    def printed(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str | re.Pattern[str]) -> re.Match[str]:
        """Wait until the output contains the text or matches the pattern."""
        pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
        deadline = time.monotonic() + PATIENCE
        while (found := pattern.search(self.printed)) is None:
            assert time.monotonic() < deadline, f"no {pattern.pattern!r} in:\n{self.printed}"
            time.sleep(0.02)
        return found

    def stop(self) -> None:
        """Press Ctrl-C, and check that the exit code is 0."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE) == 0, self.printed
        self._close()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
