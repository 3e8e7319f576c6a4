"""A service of its own: a folder with a bus module, served by a real ``lightbus run`` process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, Self

TIMEOUT = 30.0

AUTH_API = """
import lightbus
from lightbus import Api, Event


class AuthApi(Api):
    user_created = Event(parameters=('username', 'email'))
    user_updated = Event(parameters=('username', 'new_email'))
    user_deleted = Event(parameters=('username'))

    class Meta:
        name = 'auth'


bus = lightbus.create()
bus.client.register_api(AuthApi())
"""


class Service:
    """One ``lightbus run``; what it prints is read as it comes."""

    def __init__(
        self,
        folder: Path,
        bus_module: str,
        *,
        url: str = "",
        name: str = "",
        apis: dict[str, Any] | None = None,
        **api_settings: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bus.py").write_text(textwrap.dedent(bus_module))
        default = {"event_transport": {"rabbitmq": {"url": url}}, **api_settings}
        config = {"service_name": name or folder.name, "apis": apis or {"default": default}}
        (folder / "lightbus.json").write_text(json.dumps(config))
        self.output: list[str] = []
        self.log: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self.wait()

    def start(self) -> Self:
        """Start the process and wait until its listeners take events."""
        self.start_process()
        self.wait_for_log("Ready. Press Ctrl-C to stop.")
        return self

    def start_process(self) -> Self:
        """Start the process."""
        self.output.clear()
        self.log.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lightbus.cli", "run", "--log-format", "json"],
            cwd=self.folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self._add_output)),
            threading.Thread(target=self._read, args=(self._process.stderr, self._add_log)),
        ]
        for reader in self._readers:
            reader.start()
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask the process to stop, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End the process as a crash would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for the process to end and return its exit code."""
        assert self._process is not None
        code = self._process.wait(TIMEOUT)
        for reader in self._readers:
            reader.join(TIMEOUT)
        return code

    def wait_for_output(self, text: str, *, count: int = 1) -> None:
        """Wait until `count` lines of the bus module's own output hold `text`."""
        self._wait_until(lambda: self.count_output(text) >= count, f"{count} x {text!r}")

    def count_output(self, text: str) -> int:
        """Return how many lines of output hold `text`."""
        return sum(text in line for line in self.output)

    def wait_for_log(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log whose text starts with `event`, and return its fields."""
        self._wait_until(lambda: bool(self.logged(event)), f"log line {event!r}")
        return self.logged(event)[0]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of the log lines whose text starts with `event`."""
        return [line for line in self.log if str(line["event"]).startswith(event)]

    def _wait_until(self, is_true: Any, what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        with self._news:
            while not is_true():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"No {what} from {self.folder.name}:\n{self._told()}")
                self._news.wait(left)

    def _told(self) -> str:
        return "\n".join([*self.output, *(json.dumps(line) for line in self.log)])

    def _read(self, stream: Any, add: Any) -> None:
        with stream:
            for line in stream:
                with self._news:
                    add(line.rstrip("\n"))
                    self._news.notify_all()

    def _add_output(self, line: str) -> None:
        self.output.append(line)

    def _add_log(self, line: str) -> None:
        try:
            self.log.append(json.loads(line))
        except ValueError:
            self.log.append({"event": line, "not_json": True})
