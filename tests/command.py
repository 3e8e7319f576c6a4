"""The command line, in processes of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import command_server

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
        """Run it to its end; return its exit code, its output and its standard error.

        It runs in a fork of a process that has loaded Python and the libraries already. Use `start`
        for variables that Python reads when it starts.

        Args:
            arguments: The arguments of the command line.
            given: What it reads from standard input.
            environment: Variables of its environment.
        """
        return self._run_in_fork(arguments, environment, given=given)

    def run_into(
        self, stdout: IO[str] | None, stderr: IO[str] | None, *arguments: str
    ) -> tuple[int, str, str]:
        """Run it with other streams than the test's; return what calling it does."""
        return self._run_in_fork(arguments, {}, stdout=stdout, stderr=stderr)

    def _run_in_fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        given: str = "",
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> tuple[int, str, str]:
        with contextlib.ExitStack() as stack:
            own = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
            own[0].write(given)
            own[0].seek(0)
            code = _ask_command_server(
                (arguments, str(self._folder), self._environment(environment), int(TIMEOUT)),
                streams=[own[0], stdout or own[1], stderr or own[2]],
            )
            for file in own:
                file.seek(0)
            printed, said = own[1].read(), own[2].read()
        assert "Traceback" not in said, said
        return code, printed, said

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start it as a user does, for the test to talk to and to stop."""
        process = subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", *arguments],
            cwd=self._folder,
            env=self._environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.enter_context(process)
        self._started.callback(process.kill)
        return process

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self._folder), **variables}


def _ask_command_server(request: object, *, streams: Sequence[IO[str]]) -> int:
    server = _command_server()
    socket.send_fds(server, [json.dumps(request).encode()], [s.fileno() for s in streams])
    answer = server.recv(100)
    assert answer, "The command server has ended. Its standard error says why."
    return int(answer)


@functools.cache
def _command_server() -> socket.socket:
    """Start the process whose forks run commands. It ends with the test run."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, command_server.__file__],
            env={"PATH": os.environ["PATH"]},
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


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
