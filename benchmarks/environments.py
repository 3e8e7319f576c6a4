"""The contenders, and the virtual environment of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".benchmarks"
CONSTRAINTS = str(ROOT / "constraints.txt")
ALLOCATION_COUNTER = "memray ==1.*"
SCRIPTS = Path(__file__).with_name("contenders")


@attrs.frozen(kw_only=True)
class Contender:
    """A library to measure.

    Attributes:
        name: The name to show.
        script: The file in `contenders/`.
        requirement: The package to install; None if the standard library is enough.
        distributions: The packages whose versions to show.
        colour: The colour of its lines in plots.
    """

    name: str
    script: str
    requirement: str | None
    distributions: tuple[str, ...]
    colour: str

    @property
    def python(self) -> Path:
        """The Python of the environment."""
        return KEPT / "environments" / self.script / "bin" / "python"

    def install(self) -> dict[str, str]:
        """Create or update the environment, and return its package versions.

        Raises:
            subprocess.CalledProcessError: pip cannot.
        """
        if not self.python.exists():
            folder = self.python.parents[1]
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        if self.requirement is not None:
            pip = [str(self.python), "-m", "pip", "--disable-pip-version-check"]
            requirements = [self.requirement, ALLOCATION_COUNTER, "--constraint", CONSTRAINTS]
            subprocess.run(
                [*pip, "install", "--quiet", *requirements], env=environment(), check=True
            )
        script = (
            "import importlib.metadata, json, sys;"
            "print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))"
        )
        answer = subprocess.run(
            [str(self.python), "-I", "-c", script, *self.distributions],
            stdout=subprocess.PIPE,
            check=True,
        )
        versions: dict[str, str] = json.loads(answer.stdout)
        return versions


def environment() -> dict[str, str]:
    """Return the environment variables of a contender, without those that change Python's paths."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


THIS_BUS = Contender(
    name="this bus",
    script="this_bus",
    requirement=f"{ROOT}[rabbitmq]",
    distributions=("lightbus", "aio-pika", "aiormq"),
    colour="#c2410c",
)
AIO_PIKA = Contender(
    name="aio-pika by hand",
    script="plain_aio_pika",
    requirement="aio-pika ==10.2.*",
    distributions=("aio-pika", "aiormq"),
    colour="#1d4ed8",
)
FASTSTREAM = Contender(
    name="FastStream",
    script="faststream_",
    requirement="faststream[rabbit] ==0.7.*",
    distributions=("faststream", "aio-pika", "pydantic"),
    colour="#047857",
)
DRAMATIQ = Contender(
    name="Dramatiq",
    script="dramatiq_",
    requirement="dramatiq[rabbitmq] ==2.2.*",
    distributions=("dramatiq", "pika"),
    colour="#7c3aed",
)
LIGHTBUS_REDIS = Contender(
    name="Lightbus on Redis",
    script="lightbus_on_redis",
    requirement="lightbus ==1.3.0a6",
    distributions=("lightbus",),
    colour="#64748b",
)
SQLITE3 = Contender(
    name="sqlite3 by hand",
    script="plain_sqlite3",
    requirement=None,
    distributions=(),
    colour="#0e7490",
)

CONTENDERS = (THIS_BUS, AIO_PIKA, FASTSTREAM, DRAMATIQ, LIGHTBUS_REDIS, SQLITE3)
