"""What became of events while faults were made: none may be lost, and none come from nowhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Self

import attrs


@attrs.frozen(kw_only=True)
class Result:
    """The verdict.

    Attributes:
        fired: How many events `fire_async` returned from.
        unknown: How many it raised `SendOutcomeUnknown` for.
        lost: How many of those that were fired no worker handled.
        unexpected: How many were handled that were neither fired nor unknown.
        recovered: How many of the unknown were handled.
        duplicates: How many times an event was handled once more than needed.
        unexplained: How many of those were not the last that a killed worker had handled.
    """

    fired: int
    unknown: int
    lost: int
    unexpected: int
    recovered: int
    duplicates: int
    unexplained: int

    @classmethod
    def of(
        cls,
        *,
        fired: Collection[str],
        unknown: Collection[str],
        handled: Iterable[tuple[int, str]],
        killed: Iterable[int],
    ) -> Self:
        """Compare what producers and workers wrote down.

        Args:
            fired: Ids of the events that were stored, as far as their producers know.
            unknown: Ids of those whose outcome they do not know.
            handled: The process id of a worker and the id of an event, in each worker's order.
            killed: Process ids of the workers that were killed.
        """
        handlers: defaultdict[str, list[int]] = defaultdict(list)
        last_of: dict[int, str] = {}
        for pid, event in handled:
            handlers[event].append(pid)
            last_of[pid] = event
        # A worker that is killed may have handled one event whose ack was not stored: its last.
        explained = sum(1 for pid in killed if len(handlers.get(last_of.get(pid, ""), ())) > 1)
        duplicates = sum(len(pids) - 1 for pids in handlers.values())
        return cls(
            fired=len(fired),
            unknown=len(unknown),
            lost=len(set(fired) - handlers.keys()),
            unexpected=len(handlers.keys() - set(fired) - set(unknown)),
            recovered=len(set(unknown) & handlers.keys()),
            duplicates=duplicates,
            unexplained=max(duplicates - explained, 0),
        )

    @property
    def kept_the_promise(self) -> bool:
        """Whether nothing was lost, and nothing came from nowhere."""
        return self.lost == 0 and self.unexpected == 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in attrs.asdict(self).items())
