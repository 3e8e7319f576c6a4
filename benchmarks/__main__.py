"""``python -m benchmarks``: runs the benchmarks, prints the results and updates the docs."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable

import click
from rich.console import Console

from benchmarks import allocations, firing, goals, growth, handling, latency, memory, starting
from benchmarks.brokers import Brokers
from benchmarks.comparing import Bench
from benchmarks.environments import CONTENDERS, KEPT, ROOT
from benchmarks.plots import draw
from benchmarks.report import PICTURES, Report, write_into_docs

Topic = Callable[[Bench], Report]

TOPICS: dict[str, Topic] = {
    "goals": goals.run,
    "firing": firing.run,
    "handling": handling.run,
    "latency": latency.run,
    "growth": growth.run,
    "memory": memory.run,
    "allocations": allocations.run,
    "starting": starting.run,
}


@click.command()
@click.argument("topics", nargs=-1, type=click.Choice(list(TOPICS)))
@click.option("--quick", is_flag=True, help="Use few events and rounds; do not update the docs.")
@click.option("--rounds", type=int, help="The number of rounds.  [default: 7; quick: 2]")
def main(topics: tuple[str, ...], *, quick: bool, rounds: int | None) -> None:
    """Run the benchmarks of TOPICS, by default all, for Lightbus and other libraries.

    Prints the results and saves them in .benchmarks/results/. Without --quick, also updates the
    tables and plots in docs/performance.rst. Exits with 1 if a measurement failed.
    """
    console = Console(width=150 if not sys.stdout.isatty() else None)
    versions = {contender.name: contender.install() for contender in CONTENDERS}
    with Brokers.running() as brokers:
        bench = Bench(brokers, rounds or (2 if quick else 7), is_quick=quick)
        about = conditions(bench, versions)
        console.print(about)
        for topic in topics or TOPICS:
            show(console, bench, topic, about, TOPICS[topic](bench))
    for failure in bench.failures:
        console.print(f"Not measured: {failure}", style="red")
    sys.exit(1 if bench.failures else 0)


def show(console: Console, bench: Bench, topic: str, about: str, report: Report) -> None:
    """Print the results of a topic, and save them."""
    for table in report.tables:
        console.print(table.for_terminal(topic))
    for plot in report.plots:
        console.print(plot.as_table().for_terminal(f"{plot.title} ({plot.y_label})"))
    for note in report.notes:
        console.print(note)
    results = KEPT / "results"
    results.mkdir(parents=True, exist_ok=True)
    kept = {"about": about, **report.for_file()}
    (results / f"{topic}.json").write_text(json.dumps(kept, indent=2))
    for plot in report.plots:
        console.print(f"Drawn: {draw(plot, results if bench.is_quick else PICTURES)}")
    if not bench.is_quick:
        command = shlex.join(["scripts/bench", topic])
        write_into_docs(topic, f"``{command}``. {about}\n\n{report.for_docs()}")


def conditions(bench: Bench, versions: dict[str, dict[str, str]]) -> str:
    """Return the commit, the machine, the versions and the number of rounds."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    listed = [f"{name} ({pairs(found.items())})" for name, found in versions.items() if found]
    return (
        f"Commit {commit.stdout.strip()}, {bench.rounds} rounds. {machine()}, "
        f"Python {platform.python_version()}, {pairs(bench.brokers.versions.items())}. "
        f"{'; '.join(listed)}."
    )


def pairs(named: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in named)


def machine() -> str:
    """Return the processor and the system of the machine."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0]}, {platform.system()} {platform.release()}"


if __name__ == "__main__":
    main()
