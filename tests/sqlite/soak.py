"""Workers that are killed at random while events go through a file, and none may be lost.

Run by the tests with few events, and by hand with many::

    cd tests && python -m sqlite.soak --events 100000

It prints what became of the events, and ends with 1 if one was lost, or came twice without a kill
to explain it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import attrs

import lightbus
from lightbus import Api, Event

WORKERS = 4
IN_FLIGHT = 50

# How long everything may stand still, in seconds: an event that was with two workers when they were
# killed waits for the acknowledgement timeout of 60 s.
PATIENCE = 90.0

BUS = """
import os
import lightbus

bus = lightbus.create()
# One write of one line is never mixed with another, nor half done where the process is killed.
journal = os.open(f"handled-{os.getpid()}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)


def handle(event):
    os.write(journal, f"{event.id}\\n".encode())


bus.soak.happened.listen(handle, listener_name="soak")
"""


class SoakApi(Api):
    happened = Event(parameters=("number",))

    class Meta:
        name = "soak"


@attrs.define
class Result:
    """What became of the events.

    Attributes:
        fired: How many `fire_async` returned from.
        lost: How many of them no worker handled.
        duplicates: How many were handled once more than needed.
        unexplained: How many of those were not in the hands of a worker when it was killed.
        kills: How many workers were killed.
        seconds: How long it all took.
    """

    fired: int
    lost: int
    duplicates: int
    unexplained: int
    kills: int
    seconds: float

    @property
    def is_good(self) -> bool:
        """Whether the promise was kept."""
        return self.lost == 0 and self.unexplained == 0

    def __str__(self) -> str:
        return (
            f"fired {self.fired:,}, lost {self.lost}, duplicates {self.duplicates}, "
            f"unexplained {self.unexplained}, kills {self.kills}, {self.seconds:.0f} s"
        )


class Soak:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, *, events: int, kill_every: float, seed: int) -> None:
        self._folder = folder
        self._events = events
        self._kill_every = kill_every
        self._random = random.Random(seed)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._killed: list[int] = []
        sqlite = {"path": str(folder / "events.db"), "lease": 2}
        self._config = {
            "service_name": "soak",
            "apis": {"default": {"event_transport": {"sqlite": sqlite}}},
        }

    async def run(self) -> Result:
        """Fire, handle and kill, until every event was handled."""
        started = time.monotonic()
        (self._folder / "bus.py").write_text(BUS)
        (self._folder / "lightbus.json").write_text(json.dumps(self._config))
        self._workers = [self._start() for _ in range(WORKERS)]
        killing = asyncio.create_task(self._kill())
        try:
            fired = await self._fire()
            await self._until_handled(fired)
        finally:
            killing.cancel()
            await asyncio.wait({killing})
            for worker in self._workers:
                worker.send_signal(signal.SIGTERM)
            for worker in self._workers:
                worker.wait(PATIENCE)
        return self._judged(fired, time.monotonic() - started)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", "run", "--log-level", "error"],
            cwd=self._folder,
        )

    async def _kill(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self._kill_every)
            # One is never killed, so that there is progress.
            place = self._random.randrange(1, WORKERS)
            worker = self._workers[place]
            worker.kill()
            worker.wait()
            self._killed.append(worker.pid)
            self._workers[place] = self._start()

    async def _fire(self) -> set[str]:
        bus = lightbus.create(self._config)
        bus.client.register_api(SoakApi)
        bus.soak.happened.listen(lambda number: None, listener_name="soak")
        numbers = iter(range(self._events))
        fired: set[str] = set()

        async def fire_some() -> None:
            for number in numbers:
                fired.add((await bus.soak.happened.fire_async(number=number)).id)

        await asyncio.gather(*(fire_some() for _ in range(IN_FLIGHT)))
        await bus.client.close_async()
        return fired

    async def _until_handled(self, fired: set[str]) -> None:
        handled, last_news = 0, time.monotonic()
        while len(found := {event for _, event in self._handled()} & fired) < len(fired):
            if len(found) > handled:
                handled, last_news = len(found), time.monotonic()
            if time.monotonic() - last_news > PATIENCE:
                return
            await asyncio.sleep(0.5)

    def _handled(self) -> Iterator[tuple[int, str]]:
        for file in self._folder.glob("handled-*"):
            pid = int(file.name.removeprefix("handled-"))
            for line in file.read_text().splitlines():
                yield pid, line

    def _judged(self, fired: set[str], seconds: float) -> Result:
        handlers: defaultdict[str, list[int]] = defaultdict(list)
        last_of: dict[int, str] = {}
        for pid, event in self._handled():
            handlers[event].append(pid)
            last_of[pid] = event
        # A worker that is killed may have handled one event whose ack was not stored: its last.
        explained = sum(
            1 for pid in self._killed if pid in last_of and len(handlers[last_of[pid]]) > 1
        )
        duplicates = sum(len(pids) - 1 for pids in handlers.values())
        return Result(
            fired=len(fired),
            lost=len(fired - handlers.keys()),
            duplicates=duplicates,
            unexplained=max(duplicates - explained, 0),
            kills=len(self._killed),
            seconds=seconds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lightbus-soak-") as folder:
        soak = Soak(Path(folder), events=given.events, kill_every=given.kill_every, seed=given.seed)
        result = asyncio.run(soak.run())
    print(result)
    sys.exit(not result.is_good)


if __name__ == "__main__":
    main()
