"""``lightbus run --reload``: a worker that is started again whenever the program changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from lightbus.exceptions import PackageMissing
from lightbus.log import get_logger

_log = get_logger("lightbus")

# What a program and its configuration are made of
_SUFFIXES = (".py", ".yaml", ".yml", ".json", ".toml")

# How long running handlers may take to finish before the worker is killed, in seconds: longer than
# the worker itself gives them.
_PATIENCE = 60


def run_with_reload(arguments: list[str]) -> int:
    """Run ``lightbus`` with `arguments` in a process of its own, and again whenever a file of the
    current folder changes; return the last one's exit code when this process is asked to stop.

    Raises:
        PackageMissing: The extra ``lightbus[reload]`` is not installed.
    """
    try:
        from watchfiles import Change, DefaultFilter, watch  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise PackageMissing("To run with --reload", "reload") from error

    class OfPrograms(DefaultFilter):
        """Passes over what is no part of a program, such as caches and virtual environments."""

        def __call__(self, change: Change, path: str) -> bool:
            return path.endswith(_SUFFIXES) and super().__call__(change, path)

    folder = Path.cwd()
    stopping = threading.Event()
    worker = _start(arguments)

    def stop(*_: object) -> None:
        # Told once more, the worker stops at once.
        if stopping.is_set():
            worker.send_signal(signal.SIGINT)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    _log.info("Watching for changes. Ctrl-C stops.", folder=str(folder))
    try:
        for changes in watch(folder, watch_filter=OfPrograms(), stop_event=stopping, debounce=200):
            names = sorted({str(Path(path).relative_to(folder)) for _, path in changes})
            _log.info("Files have changed: starting again.", files=", ".join(names))
            _stop(worker)
            worker = _start(arguments)
    finally:
        code = _stop(worker)
    return code


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    # Apart from this one's group, or else Ctrl-C would reach it twice, and have it stop at once.
    command = [sys.executable, "-m", "lightbus.cli", *arguments]
    return subprocess.Popen(command, process_group=0)  # noqa: S603 - our own


def _stop(worker: subprocess.Popen[bytes]) -> int:
    worker.send_signal(signal.SIGINT)
    try:
        return worker.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()
