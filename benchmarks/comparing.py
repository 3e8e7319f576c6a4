"""Runs the measurements of several contenders alternately, and summarizes the results."""

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
    """A contender failed."""


@attrs.frozen
class Summary:
    """A summary of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary | None:
        """Return the median and the extremes of `values`; None if there are no values."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


@attrs.frozen
class Case:
    """A measurement of one contender, which runs in each round.

    Attributes:
        run: Runs the measurement, and returns the result.
        label: Distinguishes it from other cases of the contender.
    """

    contender: Contender
    run: Callable[[], Result]
    label: str = ""

    @property
    def name(self) -> str:
        """The name to show."""
        return f"{self.contender.name}, {self.label}" if self.label else self.contender.name


@attrs.frozen
class Series:
    """The results of a case in each round."""

    case: Case
    results: list[Result]

    def summary(self, quantity: Quantity) -> Summary | None:
        """Summarize a quantity; None if the case failed or does not have it."""
        values = [quantity(result) for result in self.results]
        return Summary.of([value for value in values if not math.isnan(value)])


def rate(result: Result) -> float:
    """Return the events per second."""
    return float(result["events"] / result["seconds"])


def cpu_per_event(result: Result) -> float:
    """Return the CPU time (user and system) of the contender's process per event, in µs."""
    if "cpu_seconds" not in result:
        return math.nan
    return float(result["cpu_seconds"] / result["events"] * 1e6)


def mebibytes_at_most(result: Result) -> float:
    """Return the peak memory of the contender's process, in MiB."""
    return float(result["peak_memory"] / 2**20)


def milliseconds(name: str) -> Quantity:
    """Convert a quantity from seconds to milliseconds."""
    return lambda result: float(result[name] * 1e3)


@attrs.define
class Bench:
    """The tools that the topics share.

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
        """Return the number of events: `full`, or fewer in a quick run."""
        count = max(full // 10, 500) if self.is_quick else full
        return {"count": count, "warm_up": max(count // 10, 100)}

    def case(
        self, contender: Contender, measurement: str, *, label: str = "", **options: Any
    ) -> Case:
        """Return a case: one measurement, with an empty broker each time."""
        transport = options.get("transport", "rabbitmq")

        def run() -> Result:
            with self.brokers.place(contender, transport) as url:
                return self.measure(contender, measurement, url=url, **options)

        return Case(contender, run, label)

    def measure(self, contender: Contender, measurement: str, **options: Any) -> Result:
        """Run one measurement in a new process.

        Raises:
            MeasurementFailed: The contender failed.
        """
        script = SCRIPTS / f"{contender.script}.py"
        command = [str(contender.python), str(script), measurement, json.dumps(options)]
        result: Result = json.loads(output_of(command))
        return result

    def alternate(self, cases: Sequence[Case], *, most_rounds: int = 100) -> list[Series]:
        """Run every case once per round, so that other work on the machine affects all of them. A
        case that fails is not run again.

        Args:
            most_rounds: The maximum number of rounds, for cases that take long.
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
    """Run a contender's command in an empty directory, and return its output.

    Raises:
        MeasurementFailed: The contender failed.
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
