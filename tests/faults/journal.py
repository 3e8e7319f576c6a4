"""What each process of a run writes down of what it did, in an order that a kill cannot undo."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

# The name under which a process writes, which is its role and a number: a killed process and the
# one that takes its place have different names, though perhaps one process id.
NAME_VARIABLE = "FAULTS_PROCESS"


@attrs.frozen
class Entry:
    """One line of a journal.

    Attributes:
        process: The name of the process that wrote it.
        at: When, in seconds of the machine's monotonic clock.
        what: What it did, in a word.
        event_id: To which event.
    """

    process: str
    at: float
    what: str
    event_id: str


class Writer:
    """The journal of this process, in the current folder."""

    def __init__(self) -> None:
        name = f"journal-{os.environ[NAME_VARIABLE]}"
        self._file = os.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, what: str, event_id: str) -> None:
        """Add a line."""
        # One write of one line is never mixed with another. The wall clocks of processes may
        # differ; the monotonic clock is the machine's.
        os.write(self._file, f"{time.monotonic():.6f} {what} {event_id}\n".encode())


class Reader:
    """The journals of all processes, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def news(self) -> Iterator[Entry]:
        """Yield the lines that were completed since the last call."""
        for file in sorted(self._folder.glob("journal-*")):
            with file.open("rb") as lines:
                start = self._read.get(file, 0)
                lines.seek(start)
                # The reader may see a part of a line that is being written across two pages.
                written, newline, _ = lines.read().rpartition(b"\n")
                self._read[file] = start + len(written) + len(newline)
            process = file.name.removeprefix("journal-")
            for line in written.decode().splitlines():
                at, what, event_id = line.split(" ")
                yield Entry(process, float(at), what, event_id)
