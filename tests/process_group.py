"""Processes that end together, and at the latest with the test run."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Leads the group, and ends it once its stdin closes: that is, when the test run dies, however it
# dies. PR_SET_PDEATHSIG would watch the thread that started a process instead, and tests start
# brokers in threads that end.
GUARD = ("sh", "-c", "read -r _; kill -KILL 0")


class ProcessGroup:
    """Starts processes and kills them, with all that they have started themselves."""

    def __init__(self) -> None:
        self._guard = subprocess.Popen(GUARD, stdin=subprocess.PIPE, process_group=0)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in `folder`, which says what it has to say in `log`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
                process_group=self._guard.pid,
            )
        self._processes.append(process)
        return process

    def kill(self) -> None:
        """End all at once with SIGKILL. It is the last thing that a group does."""
        os.killpg(self._guard.pid, signal.SIGKILL)
        for process in (*self._processes, self._guard):
            process.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
