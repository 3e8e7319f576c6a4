"""Measures handled events per second and CPU time, for async and sync handlers."""

from __future__ import annotations

from benchmarks.comparing import Bench, Case, cpu_per_event, rate
from benchmarks.environments import (
    AIO_PIKA,
    DRAMATIQ,
    FASTSTREAM,
    LIGHTBUS_REDIS,
    THIS_BUS,
    Contender,
)
from benchmarks.report import Report, Table, shown

COLUMNS = ("handler", "who", "events a second", "CPU µs an event")

HANDLERS = {
    "async": (THIS_BUS, AIO_PIKA, FASTSTREAM, LIGHTBUS_REDIS),
    "sync": (THIS_BUS, FASTSTREAM, DRAMATIQ),
}


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    rows: list[tuple[str, ...]] = []
    for handler, contenders in HANDLERS.items():
        cases = [_case(bench, contender, handler) for contender in contenders]
        for place, series in enumerate(bench.alternate(cases)):
            rows.append(
                (
                    "" if place else handler,
                    series.case.contender.name,
                    shown(series.summary(rate)),
                    shown(series.summary(cpu_per_event)),
                )
            )
    note = "FastStream's async and sync handlers are typed: they receive a pydantic model."
    return Report(tables=[Table(COLUMNS, rows)], notes=[note])


def _case(bench: Bench, contender: Contender, handler: str) -> Case:
    count = bench.count(10_000)
    return bench.case(contender, "handle", label=handler, handler=handler, **count)
