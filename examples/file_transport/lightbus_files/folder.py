"""The broker: a directory in which each event of each listener is a file.

::

    queues/{api}/{service}/{listener}/
        events/     an empty file for each event that the listener listens for
        waiting/    events to deliver, in the order of their names
        delayed/    delayed events; the name starts with the time at which the event is due
        in_flight/  delivered events; the name ends with the name of the worker
    dead/{service}/
    workers/        a file for each worker, locked while the worker runs
    temporary/      files that are being written; a complete file is moved to its place

The file name of an event holds all that changes about it. So each step is a rename, which is atomic.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import quote

import attrs

from lightbus.message import EventMessage
from lightbus.transport.records import QueueAddress


@attrs.frozen
class FileName:
    """The file name of an event. Its place in the queue is a time in nanoseconds since 1970."""

    position: int
    attempt: int
    redeliveries: int
    first_failed_at: int  # in microseconds since 1970; 0 before the first retry with a delay
    unique: str
    _last_position: ClassVar[int] = 0

    @classmethod
    def new(cls, attempt: int) -> Self:
        """Return the file name of an event that is sent now."""
        # Two events may be sent at the same tick of the clock.
        FileName._last_position = max(time.time_ns(), FileName._last_position + 1)
        return cls(FileName._last_position, attempt, 0, 0, uuid.uuid4().hex)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the parts of a file name. A worker's name at its end is ignored."""
        position, attempt, redeliveries, first_failed_at, unique = text.split(",")[:5]
        return cls(int(position), int(attempt), int(redeliveries), int(first_failed_at), unique)

    def __str__(self) -> str:
        numbers = f"{self.position:020},{self.attempt},{self.redeliveries},{self.first_failed_at}"
        return f"{numbers},{self.unique}"

    def redelivered(self) -> Self:
        """Return the file name for the next attempt, in the same place."""
        return attrs.evolve(self, attempt=self.attempt + 1, redeliveries=self.redeliveries + 1)

    def delayed(self, seconds: float, *, counts: bool) -> Self:
        """Return the file name after a delay. `counts` says whether an attempt failed."""
        now = time.time_ns()
        return attrs.evolve(
            self,
            position=now + int(seconds * 1e9),
            attempt=self.attempt + counts,
            redeliveries=0,
            first_failed_at=self.first_failed_at or (now // 1000 if counts else 0),
        )


class Queue:
    """The events of one listener."""

    def __init__(self, root: Path, address: QueueAddress) -> None:
        names = (address.api_name, address.service_name, address.listener_name)
        self.path = root.joinpath("queues", *map(encode, names))
        self._root = root

    def declare(self, events: frozenset[str]) -> None:
        """Create the queue, and store events of these names from now on."""
        for name in ("waiting", "delayed", "in_flight", "events"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        for event in events:
            (self.path / "events" / encode(event)).touch()

    def get(self, worker: str) -> Path | None:
        """Deliver the first event to `worker`; return its file, or None if no event is ready."""
        self._end_delays()
        for name in sorted(os.listdir(self.path / "waiting")):
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                return (self.path / "waiting" / name).rename(
                    self.path / "in_flight" / f"{name},{worker}"
                )
        return None

    def move(self, file: Path, to: str, name: FileName) -> None:
        """Move an event in flight to "waiting" or "delayed"."""
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            file.rename(self.path / to / str(name))

    def redeliver_from_lost_workers(self) -> None:
        """Return the events of workers that no longer run to the queue."""
        for file in (self.path / "in_flight").iterdir():
            if not Worker.is_running(self._root, file.name.rpartition(",")[2]):
                self.move(file, "waiting", FileName.parse(file.name).redelivered())

    def _end_delays(self) -> None:
        for name in sorted(os.listdir(self.path / "delayed")):
            if FileName.parse(name).position > time.time_ns():
                break
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                (self.path / "delayed" / name).rename(self.path / "waiting" / name)


class Worker:
    """A consumer of events. A file lock shows other processes that it runs."""

    def __init__(self, root: Path) -> None:
        self.name = uuid.uuid4().hex
        self._file = root / "workers" / self.name
        self._lock = os.open(self._file, os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Release the lock."""
        self._file.unlink()
        os.close(self._lock)

    @staticmethod
    def is_running(root: Path, name: str) -> bool:
        """Return whether the worker of that name holds its lock."""
        try:
            with contextlib.suppress(FileNotFoundError), (root / "workers" / name).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def create(root: Path) -> None:
    """Create the directories that all queues share."""
    for name in ("queues", "dead", "workers", "temporary"):
        (root / name).mkdir(parents=True, exist_ok=True)


def queues_for(root: Path, message: EventMessage) -> list[Path]:
    """Return the directory of each queue that is declared for an event."""
    api = root / "queues" / encode(message.api_name)
    return [file.parent.parent for file in api.glob(f"*/*/events/{encode(message.event_name)}")]


def dead_letter_folder(root: Path, service_name: str) -> Path:
    """Return the directory of the dead letters of a service; create it if it does not exist."""
    folder = root / "dead" / encode(service_name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(root: Path, content: bytes, target: Path) -> None:
    """Write a file atomically, and return when it would survive a power failure."""
    temporary = root / "temporary" / uuid.uuid4().hex
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def encode(name: str) -> str:
    """Return a file name for a name, without slashes, and neither "." nor ".."."""
    return quote(name, safe="").replace(".", "%2E")
