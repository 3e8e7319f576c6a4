"""`Queue`: the folder in which the events of one listener wait, move and are taken.

::

    queues/{api}/{service}/{listener}/
        wants/      an empty file for each event that the listener wants
        waiting/    ready to be taken, in the order of their names
        delayed/    named by the time at which they are ready
        taken/      with the name of the worker that has them behind their own
    dead/{service}/
    workers/        a file for each worker, locked for as long as it lives
    temporary/      where files are written before they are moved to where they belong

An event's file is named ``{nanoseconds},{attempt},{redeliveries},{first failed at},{unique}``: all that
changes about an event is in its name, so every step is one rename, which happens wholly or not at all.
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
    """What the name of an event's file says."""

    position: int
    attempt: int
    redeliveries: int
    first_failed_at: int  # in microseconds since 1970; 0 where no attempt failed
    unique: str

    @classmethod
    def new(cls, *, attempt: int = 1) -> Self:
        """Return the name of an event that is stored now."""
        return cls(_next_position(), attempt, 0, 0, uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what `text`, the name of a file, says."""
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
        """Return the queue of an API's, a service's and a listener's name."""
        return cls(root, root.joinpath("queues", *map(_encoded, names)))

    def declare(self, events: frozenset[str]) -> None:
        """Keep events of these names from now on."""
        for name in ("waiting", "delayed", "taken", "wants"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for event in events:
            (self._folder / "wants" / _encoded(event)).touch()

    def put(self, content: bytes, name: Name) -> None:
        """Store an event; return when it would survive a power failure."""
        write(self._root, content, self._folder / "waiting" / str(name))

    def take(self, worker: str) -> tuple[Name, bytes] | None:
        """Move the first event that waits to those that `worker` has, and return it."""
        self._end_delays()
        for text in sorted(os.listdir(self._folder / "waiting")):
            taken = self._folder / "taken" / f"{text},{worker}"
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                (self._folder / "waiting" / text).rename(taken)
                return Name.read(text), taken.read_bytes()
        return None

    def free_what_the_dead_have(self) -> None:
        """Give back, as the next attempt, what workers have that live no more."""
        for text in os.listdir(self._folder / "taken"):
            worker = text.rpartition(",")[2]
            if not Worker.is_alive(self._root, worker):
                self.give_back(Name.read(text), worker, is_attempt=True)

    def remove(self, name: Name, worker: str) -> bool:
        """Forget an event that `worker` has; return whether it still had it."""
        try:
            self._taken(name, worker).unlink()
        except FileNotFoundError:
            return False
        return True

    def give_back(self, name: Name, worker: str, *, is_attempt: bool) -> bool:
        """Put an event where it was; return whether `worker` still had it."""
        back = name
        if is_attempt:
            back = attrs.evolve(name, attempt=name.attempt + 1, redeliveries=name.redeliveries + 1)
        return self._move(name, worker, "waiting", back)

    def delay(self, name: Name, worker: str, *, seconds: float, is_failure: bool) -> bool:
        """Have an event wait for its time, which is its next attempt if it has failed; return
        whether `worker` still had it.
        """
        ready_at = time.time_ns() + int(seconds * 1e9)
        later = attrs.evolve(name, position=ready_at, redeliveries=0)
        if is_failure:
            failed_at = name.first_failed_at or time.time_ns() // 1000
            later = attrs.evolve(later, attempt=name.attempt + 1, first_failed_at=failed_at)
        return self._move(name, worker, "delayed", later)

    def count(self, folder: str) -> int:
        """Return how many events are "waiting", "delayed" or "taken"."""
        return len(os.listdir(self._folder / folder))

    def _end_delays(self) -> None:
        for text in sorted(os.listdir(self._folder / "delayed")):
            if Name.read(text).position > time.time_ns():
                break
            with contextlib.suppress(FileNotFoundError):
                (self._folder / "delayed" / text).rename(self._folder / "waiting" / text)

    def _move(self, name: Name, worker: str, folder: str, new: Name) -> bool:
        try:
            self._taken(name, worker).rename(self._folder / folder / str(new))
        except FileNotFoundError:
            return False
        return True

    def _taken(self, name: Name, worker: str) -> Path:
        return self._folder / "taken" / f"{name},{worker}"


class Worker:
    """One who takes events. It is known to live for as long as it, or its process, holds a lock."""

    def __init__(self, root: Path) -> None:
        self.name = uuid.uuid4().hex
        self._file = root / "workers" / self.name
        self._lock = os.open(self._file, os.O_CREAT | os.O_RDWR)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def end(self) -> None:
        """Let go of the lock."""
        self._file.unlink()
        os.close(self._lock)

    @staticmethod
    def is_alive(root: Path, name: str) -> bool:
        """Return whether another one of that name still has its lock."""
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
    """Make the folders that all share."""
    for name in ("queues", "dead", "workers", "temporary"):
        (root / name).mkdir(parents=True, exist_ok=True)


def queues_that_want(root: Path, api_name: str, event_name: str) -> Iterator[Queue]:
    """Yield the queue of each listener that wants an event."""
    folder = root / "queues" / _encoded(api_name)
    for wanted in folder.glob(f"*/*/wants/{_encoded(event_name)}"):
        yield Queue(root, wanted.parent.parent)


def dead_letter_folder(root: Path, service_name: str) -> Path:
    """Return the folder of a service's dead letters, made where it did not exist."""
    folder = root / "dead" / _encoded(service_name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(root: Path, content: bytes, target: Path) -> None:
    """Write a file that is never seen half written, and survives a power failure."""
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
    # No name is a path, and none is "." or "..".
    return quote(name, safe="").replace(".", "%2E")


_last_position = 0


def _next_position() -> int:
    # Two events may be stored at one tick of the clock.
    global _last_position
    _last_position = max(time.time_ns(), _last_position + 1)
    return _last_position
