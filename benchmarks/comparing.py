"""Runs measurements of several contenders by turns, and sums up what they gave."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from benchmarks.brokers import Brokers
from benchmarks.environments import SCRIPTS, Contender, environment

Result = dict[str, Any]
Quantity = Callable[[Result], float]

# Seconds
PATIENCE = 1800.0


class MeasurementFailed(Exception):
    """A contender did not do what it was asked to."""


@attrs.frozen
class Summary:
    """What several rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary | None:
        """Return the median and the extremes of `values`; None where there are none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


@attrs.frozen
class Case:
    """Something that a contender does in each round.

    Attributes:
        run: Does it, and returns what was measured.
        label: Tells it from other cases of the contender.
    """

    contender: Contender
    run: Callable[[], Result]
    label: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.contender.name}, {self.label}" if self.label else self.contender.name


@attrs.frozen
class Series:
    """What a case gave, round by round."""

    case: Case
    results: list[Result]

    def summary(self, quantity: Quantity) -> Summary | None:
        """Sum up a quantity; None where the case failed or does not have it."""
        values = [quantity(result) for result in self.results]
        return Summary.of([value for value in values if not math.isnan(value)])


def rate(result: Result) -> float:
    """Return events a second."""
    return float(result["events"] / result["seconds"])


def cpu_per_event(result: Result) -> float:
    """Return microseconds of CPU time (user and system) of the contender's process an event."""
    if "cpu_seconds" not in result:
        return math.nan
    return float(result["cpu_seconds"] / result["events"] * 1e6)


def mebibytes_at_most(result: Result) -> float:
    """Return the most memory that the contender's process held, in MiB."""
    return float(result["peak_memory"] / 2**20)


def milliseconds(name: str) -> Quantity:
    """Return a quantity that is measured in seconds, in milliseconds."""
    return lambda result: float(result[name] * 1e3)


@attrs.define
class Bench:
    """What the topics measure with.

    Attributes:
        rounds: How often each case runs.
        is_quick: Whether the point is to see that all works, rather than to know the numbers.
        failures: What could not be measured.
    """

    brokers: Brokers
    rounds: int
    is_quick: bool
    failures: list[str] = attrs.field(factory=list)

    def count(self, full: int) -> dict[str, Any]:
        """Return how many events to measure, where `full` are wanted for the docs."""
        count = max(full // 10, 500) if self.is_quick else full
        return {"count": count, "warm_up": max(count // 10, 100)}

    def case(
        self, contender: Contender, measurement: str, *, label: str = "", **options: Any
    ) -> Case:
        """Return a case: one measurement, in a place of its own each time."""
        transport = options.get("transport", "rabbitmq")

        def run() -> Result:
            with self.brokers.place(contender, transport) as url:
                return self.measure(contender, measurement, url=url, **options)

        return Case(contender, run, label)

    def measure(self, contender: Contender, measurement: str, **options: Any) -> Result:
        """Run one measurement in a process of its own.

        Raises:
            MeasurementFailed: It did not end well.
        """
        script = SCRIPTS / f"{contender.script}.py"
        command = [str(contender.python), str(script), measurement, json.dumps(options)]
        result: Result = json.loads(output_of(command))
        return result

    def alternate(self, cases: Sequence[Case], *, most_rounds: int = 100) -> list[Series]:
        """Run every case once a round, round after round, so that what else happens on the machine
        meets all of them. A case that fails is left out from then on.

        Args:
            most_rounds: For what takes so long that fewer rounds must do.
        """
        series = [Series(case, []) for case in cases]
        failed: set[str] = set()
        rounds = min(self.rounds, most_rounds)
        for number in range(1, rounds + 1):
            for each in series:
                name = each.case.name
                if name in failed:
                    continue
                print(f"  round {number} of {rounds}: {name}", file=sys.stderr)
                try:
                    each.results.append(each.case.run())
                except MeasurementFailed as error:
                    failed.add(name)
                    self.failures.append(f"{name}: {error}")
        return series


def output_of(command: Sequence[str]) -> str:
    """Run a contender's command in an empty folder, and return what it prints.

    Raises:
        MeasurementFailed: It did not end well.
    """
    with TemporaryDirectory() as folder:
        try:
            ended = subprocess.run(
                command,
                cwd=folder,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementFailed(f"it took longer than {PATIENCE:.0f} s") from error
    if ended.returncode != 0:
        raise MeasurementFailed(ended.stderr.strip()[-2000:] or f"exit code {ended.returncode}")
    return ended.stdout
