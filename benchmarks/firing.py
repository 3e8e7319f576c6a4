"""Measures confirmed events per second: from one event loop, and from several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.comparing import Bench, Case, rate
from benchmarks.environments import AIO_PIKA, DRAMATIQ, LIGHTBUS_REDIS, THIS_BUS, Contender
from benchmarks.report import Line, Plot, Report

IN_FLIGHT = (1, 10, 50, 200, 1000)
THREADS = (1, 4, 16)


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    return Report(plots=[in_flight(bench), threads(bench)])


def in_flight(bench: Bench) -> Plot:
    def case(contender: Contender, many: int) -> Case:
        count = bench.count(3_000 if many == 1 else 20_000)
        return bench.case(contender, "fire", label=f"{many} in flight", in_flight=many, **count)

    return Plot(
        name="in-flight",
        title="Confirmed events a second, one event loop",
        x_label="events in flight",
        y_label="events a second",
        lines=rates(bench, (THIS_BUS, AIO_PIKA, LIGHTBUS_REDIS), IN_FLIGHT, case),
    )


def threads(bench: Bench) -> Plot:
    def case(contender: Contender, many: int) -> Case:
        count = bench.count(5_000)
        if contender is AIO_PIKA:
            return bench.case(contender, "fire", label=f"{many} tasks", in_flight=many, **count)
        label = f"{many} threads"
        return bench.case(contender, "fire_blocking", label=label, threads=many, **count)

    return Plot(
        name="threads",
        title="Confirmed events a second, threads that block",
        x_label="threads (with aio-pika: tasks of one event loop)",
        y_label="events a second",
        lines=rates(bench, (THIS_BUS, AIO_PIKA, DRAMATIQ), THREADS, case),
    )


def rates(
    bench: Bench,
    contenders: Iterable[Contender],
    places: Iterable[int],
    case: Callable[[Contender, int], Case],
) -> list[Line]:
    """Measure each contender for each value, and return the rates."""
    lines = [Line(contender.name, contender.colour, {}) for contender in contenders]
    for place in places:
        found = bench.alternate([case(contender, place) for contender in contenders])
        for line, series in zip(lines, found, strict=True):
            if (summary := series.summary(rate)) is not None:
                line.points[place] = summary
    return lines
