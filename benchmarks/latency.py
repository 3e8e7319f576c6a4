"""Measures the latency from firing to handling, under load."""

from __future__ import annotations

from benchmarks.comparing import Bench, cpu_per_event, milliseconds, rate
from benchmarks.environments import AIO_PIKA, THIS_BUS
from benchmarks.goals import peak
from benchmarks.report import Line, Plot, Report, Table, number, shown

LOADS = (10, 50, 90)
PERCENTILES = (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))


def run(bench: Bench) -> Report:
    """Measure at fractions of aio-pika's peak rate, which are the same for both libraries."""
    most = peak(bench)
    seconds = 2 if bench.is_quick else 20
    lines = [
        Line(f"{contender.name}, {name}", contender.colour, {}, is_dashed=name == "p50")
        for contender in (THIS_BUS, AIO_PIKA)
        for name in ("p50", "p99")
    ]
    rows = []
    for load in LOADS:
        wanted = most * load / 100
        cases = [
            bench.case(
                contender,
                "fire_and_handle",
                label=f"{load} %",
                rate=wanted,
                count=int(wanted * seconds),
                warm_up=int(wanted),
            )
            for contender in (THIS_BUS, AIO_PIKA)
        ]
        for series in bench.alternate(cases):
            found = {name: series.summary(milliseconds(key)) for name, key in PERCENTILES}
            for line in lines:
                contender, name = line.label.split(", ")
                summary = found[name]
                if contender == series.case.contender.name and summary is not None:
                    line.points[load] = summary
            rows.append(
                (
                    f"{load} % ({number(wanted)} a second)",
                    series.case.contender.name,
                    *(shown(summary) for summary in found.values()),
                    shown(series.summary(cpu_per_event)),
                    shown(series.summary(rate)),
                )
            )
    columns = ("load", "who", *(f"{name}, ms" for name, _ in PERCENTILES))
    plot = Plot(
        name="latency",
        title="Latency from fire to handled",
        x_label="load, % of aio-pika's peak",
        y_label="ms",
        lines=lines,
        x_is_linear=True,
        y_from_zero=False,
    )
    table = Table((*columns, "CPU µs an event", "events a second"), rows)
    return Report(tables=[table], plots=[plot])
