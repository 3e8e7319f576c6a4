"""Restarts the worker when a file of the program changes, for ``lightbus run --reload``."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from lightbus.exceptions import ConfigError
from lightbus.log import get_logger

_log = get_logger("lightbus")

# Files of a program and its configuration
_SUFFIXES = (".py", ".yaml", ".yml", ".json", ".toml")

# Seconds to wait for the worker before it is killed; more than its own shutdown timeout.
_STOP_TIMEOUT = 60


def run_with_reload(arguments: list[str]) -> int:
    """Run ``lightbus`` with `arguments` in a child process, and restart it when a file in the
    current directory changes. Stop on a signal and return the exit code of the child.

    Raises:
        ConfigError: The extra ``lightbus[reload]`` is not installed.
    """
    folder = Path.cwd()
    stopping = threading.Event()
    changes = _watch(folder, stopping)
    worker = _start(arguments)

    def stop(*_: object) -> None:
        # A second signal stops the worker at once.
        if stopping.is_set():
            worker.send_signal(signal.SIGINT)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    _log.info("Watching for changes. Press Ctrl-C to stop.", folder=str(folder))
    try:
        for paths in changes:
            names = sorted({str(Path(path).relative_to(folder)) for path in paths})
            _log.info("Files changed; restarting.", files=", ".join(names))
            _stop(worker)
            worker = _start(arguments)
    finally:
        code = _stop(worker)
    return code


def _watch(folder: Path, stopping: threading.Event) -> Iterator[set[str]]:
    """Return an iterator over the paths of the files that change, until `stopping` is set."""
    try:
        from watchfiles import Change, DefaultFilter, watch  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--reload needs the extra `reload`. Install it: pip install 'lightbus[reload]'."
        ) from error

    class ProgramFiles(DefaultFilter):
        """Ignores other files, such as caches and virtual environments."""

        def __call__(self, change: Change, path: str) -> bool:
            return path.endswith(_SUFFIXES) and super().__call__(change, path)

    changes = watch(folder, watch_filter=ProgramFiles(), stop_event=stopping, debounce=200)
    return ({path for _, path in found} for found in changes)


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    # In a process group of its own: Ctrl-C would otherwise reach it twice and stop it at once.
    command = [sys.executable, "-m", "lightbus.cli", *arguments]
    return subprocess.Popen(command, process_group=0)  # noqa: S603 - our own command


def _stop(worker: subprocess.Popen[bytes]) -> int:
    worker.send_signal(signal.SIGINT)
    try:
        return worker.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()
