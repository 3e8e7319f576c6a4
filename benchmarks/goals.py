"""Measures the goals of Lightbus: ratios to other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from benchmarks.comparing import Bench, Case, Quantity, Series, cpu_per_event, milliseconds, rate
from benchmarks.environments import (
    AIO_PIKA,
    DRAMATIQ,
    FASTSTREAM,
    LIGHTBUS_REDIS,
    SQLITE3,
    THIS_BUS,
    Contender,
)
from benchmarks.report import Report, Table, number, shown
from benchmarks.starting import import_case

COLUMNS = (
    "what",
    "who",
    "median (lowest to highest)",
    "CPU µs an event",
    "this bus : it",
    "goal",
    "reached",
)


@attrs.frozen(kw_only=True)
class Goal:
    """A ratio of the first case, Lightbus, to the second case.

    Attributes:
        cases: The two cases. Further cases are only shown.
        is_limit: Whether the goal is a ratio of at most `ratio`, instead of at least.
    """

    what: str
    quantity: Quantity
    cases: tuple[Case, ...]
    ratio: float
    is_limit: bool = False

    def verdict(self, ratio: float) -> str:
        """Return whether the goal is reached."""
        is_reached = ratio <= self.ratio if self.is_limit else ratio >= self.ratio
        return "yes" if is_reached else "no"

    def rows(self, measured: list[Series]) -> Iterator[tuple[str, ...]]:
        """Return the rows of the table."""
        ours = measured[0].summary(self.quantity)
        for place, series in enumerate(measured):
            theirs = series.summary(self.quantity)
            ratio = ours.median / theirs.median if ours and theirs else None
            cpu = series.summary(cpu_per_event)
            yield (
                self.what if place == 0 else "",
                series.case.name,
                shown(theirs),
                number(cpu.median) if cpu else "",
                f"{ratio:.2f}" if ratio is not None and place else "",
                f"{self.ratio:g} or {'less' if self.is_limit else 'more'}" if place == 1 else "",
                self.verdict(ratio) if ratio is not None and place == 1 else "",
            )


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    rows: list[tuple[str, ...]] = []
    for goal in goals(bench):
        rows += goal.rows(bench.alternate(goal.cases))
    return Report(tables=[Table(COLUMNS, rows)])


def goals(bench: Bench) -> Iterator[Goal]:
    """Yield the goals one after the other, because some depend on earlier results."""
    yield from firing_goals(bench)
    yield from handling_goals(bench)
    yield latency_goal(bench)
    yield from other_goals(bench)


def firing_goals(bench: Bench) -> Iterator[Goal]:
    def many(contender: Contender) -> Case:
        return bench.case(contender, "fire", in_flight=200, **bench.count(20_000))

    yield Goal(
        what="confirmed events fired a second, 200 in flight",
        quantity=rate,
        cases=(many(THIS_BUS), many(AIO_PIKA), many(FASTSTREAM), many(LIGHTBUS_REDIS)),
        ratio=1.5,
    )
    count = bench.count(3_000)

    def blocking(contender: Contender) -> Case:
        return bench.case(contender, "fire_blocking", **count)

    yield Goal(
        what="confirmed events fired a second, blocking, one thread",
        quantity=rate,
        cases=(
            blocking(THIS_BUS),
            bench.case(AIO_PIKA, "fire", label="awaited one at a time", in_flight=1, **count),
            blocking(DRAMATIQ),
            blocking(LIGHTBUS_REDIS),
        ),
        ratio=1.0,
    )


def handling_goals(bench: Bench) -> Iterator[Goal]:
    def case(contender: Contender, label: str = "") -> Case:
        return bench.case(contender, "handle", label=label, **bench.count(20_000))

    yield Goal(
        what="events handled a second, async handler",
        quantity=rate,
        cases=(case(THIS_BUS), case(AIO_PIKA), case(LIGHTBUS_REDIS)),
        ratio=2.0,
    )
    yield Goal(
        what="events handled a second, typed handler",
        quantity=rate,
        cases=(case(THIS_BUS, "type hints"), case(FASTSTREAM, "pydantic body")),
        ratio=3.0,
    )


def latency_goal(bench: Bench) -> Goal:
    half = peak(bench) / 2
    seconds = 2 if bench.is_quick else 15
    many: dict[str, Any] = {"count": int(half * seconds), "warm_up": int(half)}

    def case(contender: Contender) -> Case:
        return bench.case(contender, "fire_and_handle", rate=half, **many)

    return Goal(
        what=f"p99 from fire to handled, ms, at half of aio-pika's peak ({half:,.0f} a second)",
        quantity=milliseconds("p99"),
        cases=(case(THIS_BUS), case(AIO_PIKA)),
        ratio=1.1,
        is_limit=True,
    )


def peak(bench: Bench) -> float:
    """Return the peak rate at which one process with aio-pika fires and handles events."""
    case = bench.case(AIO_PIKA, "fire_and_handle", label="its peak", **bench.count(10_000))
    summary = bench.alternate([case])[0].summary(rate)
    return summary.median if summary else 1000.0


def other_goals(bench: Bench) -> Iterator[Goal]:
    count = bench.count(5_000)
    yield Goal(
        what="durable events fired a second on SQLite",
        quantity=rate,
        cases=(
            bench.case(
                THIS_BUS, "fire", label="16 in flight", transport="sqlite", in_flight=16, **count
            ),
            bench.case(SQLITE3, "fire", label="a commit an event", transport="sqlite", **count),
        ),
        ratio=10.0,
    )
    yield Goal(
        what="CPU µs an event: the core alone, fire to handled in memory, against a publish",
        quantity=cpu_per_event,
        cases=(
            bench.case(THIS_BUS, "fire_and_handle", transport="memory", label="memory", **count),
            bench.case(AIO_PIKA, "fire", label="publish, 200 in flight", **count),
        ),
        ratio=0.15,
        is_limit=True,
    )
    yield Goal(
        what="ms to import",
        quantity=milliseconds("seconds"),
        cases=(
            import_case(bench, THIS_BUS, "lightbus"),
            import_case(bench, AIO_PIKA, "aio_pika"),
        ),
        ratio=0.6,
        is_limit=True,
    )
