"""`Queue`: the directory with the events of one listener.

::

    queues/{api}/{service}/{listener}/
        events/     an empty file for each event that the listener listens for
        waiting/    events to deliver, in the order of their names
        delayed/    delayed events; the name begins with the time at which the event is due
        in_flight/  delivered events; the name ends with the name of the worker
    dead/{service}/
    workers/        a file for each worker, locked while the worker lives
    temporary/      files that are being written; a complete file is moved to its place

An event's file is named ``{nanoseconds},{attempt},{redeliveries},{first failed at},{unique}``. Everything
that changes about an event is in its name, so each step is one atomic rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

import attrs


@attrs.frozen
class Name:
    """The parts of the name of an event's file."""

    position: int
    attempt: int
    redeliveries: int
    first_failed_at: int  # in microseconds since 1970; 0 if no attempt has failed
    unique: str

    @classmethod
    def new(cls, *, attempt: int = 1) -> Self:
        """Return the name for a new event."""
        return cls(_next_position(), attempt, 0, 0, uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse the name of a file."""
        position, attempt, redeliveries, first_failed_at, unique = text.split(",")[:5]
        return cls(int(position), int(attempt), int(redeliveries), int(first_failed_at), unique)

    def __str__(self) -> str:
        numbers = f"{self.position:020},{self.attempt},{self.redeliveries},{self.first_failed_at}"
        return f"{numbers},{self.unique}"


class Queue:
    """The events of one listener."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder

    @classmethod
    def named(cls, root: Path, *names: str) -> Self:
        """Return the queue with the names of an API, a service and a listener."""
        return cls(root, root.joinpath("queues", *map(_encoded, names)))

    def declare(self, events: frozenset[str]) -> None:
        """Create the queue, and let it receive these events."""
        for name in ("waiting", "delayed", "in_flight", "events"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for event in events:
            (self._folder / "events" / _encoded(event)).touch()

    def add(self, content: bytes, name: Name) -> None:
        """Store an event; return when it is on disk."""
        write(self._root, content, self._folder / "waiting" / str(name))

    def deliver(self, worker: str) -> tuple[Name, bytes] | None:
        """Deliver the first waiting event to `worker`; return it, or None if no event waits."""
        self._end_delays()
        for text in sorted(os.listdir(self._folder / "waiting")):
            delivered = self._folder / "in_flight" / f"{text},{worker}"
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                (self._folder / "waiting" / text).rename(delivered)
                return Name.read(text), delivered.read_bytes()
        return None

    def requeue_from_lost_workers(self) -> None:
        """Requeue the events of workers that have ended, as the next attempt."""
        for text in os.listdir(self._folder / "in_flight"):
            worker = text.rpartition(",")[2]
            if not Worker.is_alive(self._root, worker):
                self.requeue(Name.read(text), worker, is_attempt=True)

    def remove(self, name: Name, worker: str) -> bool:
        """Delete an event in flight; return whether `worker` still had it."""
        try:
            self._in_flight(name, worker).unlink()
        except FileNotFoundError:
            return False
        return True

    def requeue(self, name: Name, worker: str, *, is_attempt: bool) -> bool:
        """Move an event back to its place in the queue; return whether `worker` still had it."""
        new = name
        if is_attempt:
            new = attrs.evolve(name, attempt=name.attempt + 1, redeliveries=name.redeliveries + 1)
        return self._move(name, worker, "waiting", new)

    def delay(self, name: Name, worker: str, *, seconds: float, is_failure: bool) -> bool:
        """Delay an event; return whether `worker` still had it.

        After a failure, the event's attempt number rises.
        """
        due_at = time.time_ns() + int(seconds * 1e9)
        later = attrs.evolve(name, position=due_at, redeliveries=0)
        if is_failure:
            failed_at = name.first_failed_at or time.time_ns() // 1000
            later = attrs.evolve(later, attempt=name.attempt + 1, first_failed_at=failed_at)
        return self._move(name, worker, "delayed", later)

    def count(self, folder: str) -> int:
        """Return how many events are "waiting", "delayed" or "in_flight"."""
        return len(os.listdir(self._folder / folder))

    def _end_delays(self) -> None:
        for text in sorted(os.listdir(self._folder / "delayed")):
            if Name.read(text).position > time.time_ns():
                break
            with contextlib.suppress(FileNotFoundError):
                (self._folder / "delayed" / text).rename(self._folder / "waiting" / text)

    def _move(self, name: Name, worker: str, folder: str, new: Name) -> bool:
        try:
            self._in_flight(name, worker).rename(self._folder / folder / str(new))
        except FileNotFoundError:
            return False
        return True

    def _in_flight(self, name: Name, worker: str) -> Path:
        return self._folder / "in_flight" / f"{name},{worker}"


class Worker:
    """A receiver of events. It holds a lock until it, or its process, ends."""

    def __init__(self, root: Path) -> None:
        self.name = uuid.uuid4().hex
        self._file = root / "workers" / self.name
        self._lock = os.open(self._file, os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end(self) -> None:
        """Release the lock."""
        self._file.unlink()
        os.close(self._lock)

    @staticmethod
    def is_alive(root: Path, name: str) -> bool:
        """Return whether another worker of that name still holds its lock."""
        try:
            descriptor = os.open(root / "workers" / name, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def prepare(root: Path) -> None:
    """Create the directories that all queues share."""
    for name in ("queues", "dead", "workers", "temporary"):
        (root / name).mkdir(parents=True, exist_ok=True)


def queues_of_event(root: Path, api_name: str, event_name: str) -> Iterator[Queue]:
    """Yield the queue of each listener that listens for an event."""
    folder = root / "queues" / _encoded(api_name)
    for file in folder.glob(f"*/*/events/{_encoded(event_name)}"):
        yield Queue(root, file.parent.parent)


def dead_letter_folder(root: Path, service_name: str) -> Path:
    """Return the directory of a service's dead letters; create it if it is missing."""
    folder = root / "dead" / _encoded(service_name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(root: Path, content: bytes, target: Path) -> None:
    """Write a file atomically; return when it is on disk."""
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


def _encoded(name: str) -> str:
    # The result contains no "/" and is not "." or "..".
    return quote(name, safe="").replace(".", "%2E")


_last_position = 0


def _next_position() -> int:
    # Two events can be stored at the same time of the clock.
    global _last_position
    _last_position = max(time.time_ns(), _last_position + 1)
    return _last_position
