"""Measures the memory allocations per event."""

from __future__ import annotations

from benchmarks.comparing import Bench, Case, Result
from benchmarks.environments import AIO_PIKA, FASTSTREAM, THIS_BUS, Contender
from benchmarks.report import Report, Table, shown

COLUMNS = ("what", "who", "allocations an event")

MEASUREMENTS = {"fire": "an event fired, 200 in flight", "handle": "an event fired and handled"}


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    rows: list[tuple[str, ...]] = []
    for measurement, what in MEASUREMENTS.items():
        cases = [_case(bench, who, measurement) for who in (THIS_BUS, AIO_PIKA, FASTSTREAM)]
        for place, series in enumerate(bench.alternate(cases, most_rounds=3)):
            summary = series.summary(_allocations)
            rows.append(("" if place else what, series.case.contender.name, shown(summary)))
    note = (
        "memray counts the allocations, including those of Python's own allocator. The result is "
        "the difference between a run with many and a run with few events, divided by the "
        "difference in events. So it does not include the start."
    )
    return Report(tables=[Table(COLUMNS, rows)], notes=[note])


def _case(bench: Bench, contender: Contender, measurement: str) -> Case:
    fewer, more = (
        bench.case(contender, measurement, count=count, warm_up=200, counts_allocations=True)
        for count in (1_000, 3_000)
    )

    def run() -> Result:
        before, after = fewer.run(), more.run()
        return {name: after[name] - before[name] for name in ("allocations", "events")}

    return Case(contender, run)


def _allocations(result: Result) -> float:
    return float(result["allocations"] / result["events"])
