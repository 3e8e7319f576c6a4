"""What became of events while faults were made: none may be lost, and none come from nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from faults.journal import Entry

# For how long after a fault what it did may still be repaired, in seconds: a client waits for its
# next try to connect, a broker takes back what a lost worker held.
REPAIR = 20.0


@attrs.frozen
class Disruption:
    """A fault, and when it was made.

    Attributes:
        fault: Its name.
        start: When it began, in seconds of the machine's monotonic clock.
        end: When it was over.
        process: The process that alone it concerned; None where it concerned all.
    """

    fault: str
    start: float
    end: float
    process: str | None = None

    def explains(self, first: Entry, second: Entry) -> bool:
        """Whether an event that was handled at `first` may have been handled again for this."""
        concerned = self.process in (None, first.process, second.process)
        return concerned and self.start <= second.at and self.end + REPAIR >= first.at


@attrs.frozen(kw_only=True)
class Result:
    """The verdict.

    Attributes:
        fired: How many events were stored, as far as those who fired them know.
        unknown: Of how many they do not know it: what firing raised says so, or they were killed.
        lost: How many of those that were fired were neither handled nor are dead letters.
        unexpected: How many were handled, or are dead letters, that nobody fired.
        recovered: How many of the unknown were handled, or are dead letters.
        dead: How many are dead letters.
        duplicates: How many times an event was handled once more than needed.
        unexplained: How many of those no fault explains.
    """

    fired: int
    unknown: int
    lost: int
    unexpected: int
    recovered: int
    dead: int
    duplicates: int
    unexplained: int

    @property
    def kept_the_promise(self) -> bool:
        """Whether nothing was lost, and nothing came from nowhere."""
        return self.lost == 0 and self.unexpected == 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in attrs.asdict(self).items())


class Ledger:
    """Adds up what processes wrote down: `firing`, then `fired`, `refused` or nothing, by those who
    fire; `handled`, by those who handle.
    """

    def __init__(self) -> None:
        self.fired: set[str] = set()
        self.handled: dict[str, Entry] = {}
        self._unsettled: set[str] = set()
        self._repeats: list[tuple[Entry, Entry]] = []

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in what was written, in any order of processes, but in each one's own order."""
        for entry in entries:
            if entry.what == "firing":
                self._unsettled.add(entry.event_id)
            elif entry.what in ("fired", "refused"):
                self._unsettled.discard(entry.event_id)
                if entry.what == "fired":
                    self.fired.add(entry.event_id)
            elif entry.event_id in self.handled:
                self._repeats.append((self.handled[entry.event_id], entry))
            else:
                self.handled[entry.event_id] = entry

    def missing(self, dead: Iterable[str] = ()) -> set[str]:
        """Return the ids of what was fired and neither handled nor is among the dead letters."""
        return self.fired - self.handled.keys() - set(dead)

    def result(self, *, dead: Iterable[str], disruptions: Sequence[Disruption]) -> Result:
        """Return the verdict, given the ids of all dead letters and all that was disrupted."""
        dead = set(dead)
        kept = self.handled.keys() | dead
        return Result(
            fired=len(self.fired),
            unknown=len(self._unsettled),
            lost=len(self.missing(dead)),
            unexpected=len(kept - self.fired - self._unsettled),
            recovered=len(kept & self._unsettled),
            dead=len(dead),
            duplicates=len(self._repeats),
            unexplained=len(self.unexplained(disruptions)),
        )

    def unexplained(self, disruptions: Sequence[Disruption]) -> list[tuple[Entry, Entry]]:
        """Return the first and the further handling of each duplicate that no fault explains."""
        pairs = [(min(pair, key=_time), max(pair, key=_time)) for pair in self._repeats]
        return [pair for pair in pairs if not any(one.explains(*pair) for one in disruptions)]


def _time(entry: Entry) -> float:
    return entry.at
