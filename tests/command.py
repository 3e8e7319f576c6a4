"""The command line, in processes of its own, as a user starts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

# Long enough for a slow machine; a command that takes so long has failed.
TIMEOUT = 40.0


class Command:
    """Runs `lightbus` in a folder, with no setting from outside; what it starts ends with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def __call__(
        self, *arguments: str, given: str = "", **environment: str
    ) -> tuple[int, str, str]:
        """Run it to its end, which a traceback never is; return what `ended` does."""
        code, printed, said = ended(self.start(*arguments, **environment), given=given)
        assert "Traceback" not in said, said
        return code, printed, said

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it, for the test to talk to and to stop."""
        return self.start_into(None, None, *arguments, **environment)

    def start_into(
        self,
        stdout: IO[str] | None,
        stderr: IO[str] | None,
        *arguments: str,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """Start it; what it prints goes into files, or where there is none, to the test."""
        process = subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **environment},
            stdin=subprocess.PIPE,
            stdout=stdout or subprocess.PIPE,
            stderr=stderr or subprocess.PIPE,
            text=True,
        )
        self._started.enter_context(process)
        self._started.callback(process.kill)
        return process


def ended(process: subprocess.Popen[str], *, given: str = "") -> tuple[int, str, str]:
    """Wait for a process; return its exit code, what it printed, and what it said on stderr."""
    printed, said = process.communicate(given, timeout=TIMEOUT)
    return process.returncode, printed, said


async def wait_until_reading(process: subprocess.Popen[str]) -> None:
    """Wait until the process waits for standard input.

    Python acts on a signal between its own instructions: one that comes after the last of them
    before the system call that reads is only seen when something was read.
    """
    system_call = Path(f"/proc/{process.pid}/syscall")
    # The kernel offers no event for it. 0 0x0 is read() of file descriptor 0.
    while not system_call.read_text().startswith("0 0x0 "):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def line_with(text: str, lines: IO[str] | None) -> str:
    """Read on until a line holds `text`; the test's time limit is its patience."""
    assert lines is not None
    return next(line for line in lines if text in line)
