"""Measures the memory of a handling process, by prefetch and by backlog."""

from __future__ import annotations

from benchmarks.comparing import Bench, mebibytes_at_most
from benchmarks.growth import BY_HAND, QUICK_BACKLOG, RABBITMQ, Way, backlog_case, lines
from benchmarks.report import Plot, Report

SQLITE = Way(RABBITMQ.contender, "sqlite", "#ca8a04")
WAYS = (RABBITMQ, SQLITE, BY_HAND)

PREFETCHES = (1, 10, 50, 500, 5_000)
BODY = 10 * 1024
WAITING = 10_000
BACKLOGS = (1_000, 10_000, 100_000)


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    return Report(plots=[by_prefetch(bench), by_backlog(bench)])


def by_prefetch(bench: Bench) -> Plot:
    waiting = WAITING // 10 if bench.is_quick else WAITING
    return Plot(
        name="memory-prefetch",
        title=f"Memory, while {waiting:,} events of 10 KiB wait",
        x_label="prefetch",
        y_label="MiB at most",
        lines=lines(
            bench,
            WAYS,
            PREFETCHES,
            lambda way, size: backlog_case(bench, way, waiting, prefetch=size, body=BODY),
            quantity=mebibytes_at_most,
            most_rounds=lambda _: 3,
        ),
    )


def by_backlog(bench: Bench) -> Plot:
    return Plot(
        name="memory-backlog",
        title="Memory, with a prefetch of 50 and events of 100 bytes",
        x_label="events that wait",
        y_label="MiB at most",
        lines=lines(
            bench,
            WAYS,
            [size for size in BACKLOGS if size <= QUICK_BACKLOG or not bench.is_quick],
            lambda way, size: backlog_case(bench, way, size),
            quantity=mebibytes_at_most,
            most_rounds=lambda _: 3,
        ),
    )
