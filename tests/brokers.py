"""Runs what needs a RabbitMQ on several versions of it, and says for each what came of it.

::

    tox -e brokers                          every version
    tox -e brokers -- 4.0 4.3               some of them
    tox -e brokers -- --tests-only 4.3      without the round of faults

A version comes from the release of Debian that carries it (`scripts/rabbitmq-root`). A broker from
elsewhere, a container for example, is named by `LIGHTBUS_TEST_AMQP_URL`, and is then the only one.

It ends with 1 where something failed, with 2 where nothing failed but a version was not run (with
`--where-possible`: with 0), and with 0 where all that was asked for was run and passed.
"""

from __future__ import annotations

import argparse
import enum
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from xml.etree import ElementTree as ET

import attrs

from rabbitmq_server import AMQP_URL

ROOT = Path(__file__).parent.parent

# The release of Debian that carries it. "sid" moves on: what a folder holds is looked at.
VERSIONS = {"3.10": "bookworm", "4.0": "trixie", "4.3": "sid"}

TESTS = (
    "tests/rabbitmq",
    "tests/conformance/test_rabbitmq.py",
    "tests/test_swapping_transports.py",
)
FAULTS = ("rabbitmq", "--events", "1500", "--rate", "60", "--every", "3")


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "FAILED"
    NOT_RUN = "NOT RUN"


@attrs.frozen
class Report:
    """What came of one broker; as text, a line."""

    broker: str
    outcome: Outcome
    details: str

    def __str__(self) -> str:
        return f"RabbitMQ {self.broker}: {self.outcome.value}: {self.details}"


@attrs.frozen(kw_only=True)
class Tested:
    """What pytest wrote down.

    Attributes:
        version: What the broker itself reported; "" where none was asked.
        count: How many tests ran.
    """

    version: str
    count: int
    failed: int
    not_run: int

    @classmethod
    def read(cls, junit: Path) -> Self:
        suites = list(ET.parse(junit).getroot().iter("testsuite"))  # noqa: S314 - our own file
        properties = {
            found.get("name"): found.get("value") for s in suites for found in s.iter("property")
        }

        def total(attribute: str) -> int:
            return sum(int(suite.get(attribute, 0)) for suite in suites)

        return cls(
            version=properties.get("rabbitmq_version") or "",
            count=total("tests") - total("skipped"),
            failed=total("failures") + total("errors"),
            not_run=total("skipped"),
        )

    @property
    def passed(self) -> bool:
        return bool(self.version) and self.count > 0 and self.failed == 0

    def __str__(self) -> str:
        counts = f"{self.count} tests, {self.failed} failed"
        return f"{counts}, {self.not_run} NOT RUN" if self.not_run else counts


def on_version(version: str, *, tests_only: bool) -> Report:
    """Get a version of RabbitMQ, and run the tests on nodes of it, and then a round of faults."""
    got = subprocess.run(
        [ROOT / "scripts" / "rabbitmq-root", VERSIONS[version]],
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode != 0:
        return Report(version, Outcome.NOT_RUN, got.stderr.strip().rpartition("\n")[-1])
    root = Path(got.stdout.strip())
    held = [f.name for f in (root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")]
    if not any(name.startswith(f"rabbitmq_server-{version}.") for name in held):
        return Report(version, Outcome.NOT_RUN, f"{root} holds {', '.join(held) or 'none'}")
    environment = {**os.environ, "RABBITMQ_ROOT": str(root)}
    tested = test(environment)
    passed, details = tested.passed, str(tested)
    if not tests_only:
        faults = make_faults(environment)
        lines = (line for line in faults.stdout.splitlines() if line.startswith("fired"))
        passed = passed and faults.returncode == 0
        details += f"; faults: {next(lines, 'FAILED')}"
    return Report(tested.version or version, Outcome.PASSED if passed else Outcome.FAILED, details)


def on_given() -> Report:
    """Run the tests on the broker that the environment names."""
    tested = test(os.environ)
    return Report(
        f"{tested.version} of {AMQP_URL}",
        Outcome.PASSED if tested.passed else Outcome.FAILED,
        f"{tested}; faults NOT RUN, for they need nodes of their own",
    )


def test(environment: Mapping[str, str]) -> Tested:
    """Run the tests."""
    with tempfile.TemporaryDirectory(prefix="lightbus-brokers-") as folder:
        junit = Path(folder, "tests.xml")
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", *TESTS],
            cwd=ROOT,
            env=environment,
            check=False,
        )
        return Tested.read(junit)


def make_faults(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Fire and handle for a while with faults in between."""
    return subprocess.run(
        [sys.executable, "-m", "faults", *FAULTS],
        cwd=ROOT / "tests",
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def run(wanted: Sequence[str], *, tests_only: bool, where_possible: bool) -> int:
    """Run on all that is wanted, and return the exit code."""
    if os.environ.get(AMQP_URL):
        reports = [on_given()]
    else:
        reports = [on_version(version, tests_only=tests_only) for version in wanted]
    print("", *reports, sep="\n")
    outcomes = {report.outcome for report in reports}
    if Outcome.FAILED in outcomes:
        return 1
    return 2 if Outcome.NOT_RUN in outcomes and not where_possible else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Run what needs RabbitMQ on several versions.")
    parser.add_argument("version", nargs="*", help=", ".join(VERSIONS))
    parser.add_argument("--tests-only", action="store_true", help="make no round of faults")
    parser.add_argument(
        "--where-possible", action="store_true", help="a version that cannot be run is no failure"
    )
    options = parser.parse_args()
    wanted = options.version or list(VERSIONS)
    if unknown := set(wanted) - VERSIONS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))} in {', '.join(VERSIONS)}")
    sys.exit(run(wanted, tests_only=options.tests_only, where_possible=options.where_possible))


if __name__ == "__main__":
    main()
