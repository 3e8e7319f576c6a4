"""Measures the import time, and the time until `lightbus run` is ready."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.comparing import (
    Bench,
    Case,
    MeasurementFailed,
    Result,
    milliseconds,
    output_of,
)
from benchmarks.environments import (
    AIO_PIKA,
    DRAMATIQ,
    FASTSTREAM,
    LIGHTBUS_REDIS,
    THIS_BUS,
    Contender,
    environment,
)
from benchmarks.report import Report, Table, shown

TRANSPORTS = ("rabbitmq", "sqlite", "memory")

BUS = """
import lightbus

bus = lightbus.create()


@bus.client.on_start()
def on_start():
    bus.auth.user_created.listen(print, listener_name="welcome")
"""

_IMPORT = """
import time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""


def import_case(bench: Bench, contender: Contender, module: str) -> Case:
    """Return a case that imports a module in new processes."""
    command = [str(contender.python), "-c", _IMPORT.format(module=module)]
    times = 3 if bench.is_quick else 10

    def run() -> Result:
        # Use the median of a few, because other work on the machine can disturb a short run.
        return {"seconds": statistics.median(float(output_of(command)) for _ in range(times))}

    return Case(contender, run, f"import {module}")


def run(bench: Bench) -> Report:
    """Run the benchmarks of this topic."""
    cases = [
        import_case(bench, THIS_BUS, "lightbus"),
        import_case(bench, AIO_PIKA, "aio_pika"),
        import_case(bench, FASTSTREAM, "faststream.rabbit"),
        import_case(bench, DRAMATIQ, "dramatiq.brokers.rabbitmq"),
        import_case(bench, LIGHTBUS_REDIS, "lightbus"),
    ]
    cases += [
        Case(
            THIS_BUS,
            functools.partial(_time_to_ready, bench, transport),
            f"`lightbus run` until ready, {transport}",
        )
        for transport in TRANSPORTS
    ]
    rows: list[tuple[str, ...]] = [
        (series.case.name, shown(series.summary(milliseconds("seconds"))))
        for series in bench.alternate(cases)
    ]
    return Report(tables=[Table(("what", "ms, median (lowest to highest)"), rows)])


def _time_to_ready(bench: Bench, transport: str) -> Result:
    with (
        bench.brokers.place(THIS_BUS, transport) as url,
        TemporaryDirectory() as folder,
    ):
        place = {"rabbitmq": "url", "sqlite": "path", "memory": "name"}[transport]
        chosen = {transport: {place: url or "bench"}}
        config = {"service_name": "bench", "apis": {"default": {"event_transport": chosen}}}
        Path(folder, "lightbus.json").write_text(json.dumps(config))
        Path(folder, "bus.py").write_text(BUS)
        began = time.perf_counter()
        worker = subprocess.Popen(
            [str(THIS_BUS.python.with_name("lightbus")), "run", "--log-format", "json"],
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            return {"seconds": _seconds_to_ready(worker, began)}
        finally:
            worker.kill()
            worker.communicate()


def _seconds_to_ready(worker: subprocess.Popen[str], began: float) -> float:
    assert worker.stderr is not None
    lines = []
    for line in worker.stderr:
        if "Ready." in line:
            return time.perf_counter() - began
        lines.append(line)
    raise MeasurementFailed(f"`lightbus run` ended: {''.join(lines)[-2000:]}")
