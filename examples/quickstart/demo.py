"""Runs both services and prints each step. Use `scripts/demo` to start it.

By default, events are stored in SQLite. With ``--config FILE``, the demo uses that configuration. If
the file needs ``${AMQP_URL}`` and the variable is not set, the demo starts a private RabbitMQ.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from rabbitmq_node import NodeFailed, running_node  # noqa: E402

# Seconds
PATIENCE = 20.0
STEPS = 7

BOLD, GREEN, RED = "1", "32", "31"
COLOURS = {"auth_service": "36", "other_service": "33"}


class DemoFailed(Exception):
    """An expected line or exit code did not come."""


class Program:
    """A command of one of the services. Its output is printed with the service's name as prefix."""

    def __init__(self, service: str, *command: str, environment: dict[str, str]) -> None:
        self._service = service
        self._lines: queue.Queue[str] = queue.Queue()
        show(service, f"$ {' '.join(command)}")
        self._process = subprocess.Popen(
            command,
            cwd=HERE / service,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            show(self._service, line.rstrip())
            self._lines.put(line)

    def expect_line(self, text: str) -> None:
        """Wait for a line that contains `text`."""
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(queue.Empty):
            while text not in self._lines.get(timeout=max(deadline - time.monotonic(), 0)):
                pass
            return
        raise DemoFailed(f"{self._service} did not print {text!r} within {PATIENCE:g} s")

    def expect_success(self) -> None:
        """Wait for the program to end with 0."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{self._service} did not end within {PATIENCE:g} s") from None
        self._reader.join(PATIENCE)
        if code != 0:
            raise DemoFailed(f"{self._service} exited with {code}, not with 0")

    def stop(self) -> None:
        """Send SIGTERM and wait for the program to end with 0."""
        show(self._service, "$ kill -TERM ...")
        self._process.terminate()
        self.expect_success()
        show(self._service, "exited with 0")


class Demo:
    """The steps of the demo.

    Args:
        environment: The environment variables of the services.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._step = 0

    def run(self) -> None:
        self._say("other_service starts. Each of its listeners has a queue.")
        with self._listener() as worker:
            worker.expect_line("Ready.")

            self._say("auth_service fires user_created with fire(); a handler prints its user_db.")
            self._fire("create_users.py", "adam")
            worker.expect_line("{'adam': 'adam@example.com'}")

            self._say("auth_service fires user_updated with fire_async().")
            self._fire("update_users.py", "adam")
            worker.expect_line("{'adam': 'adam@example.org'}")

            self._say("SIGTERM stops other_service: running handlers finish, and it exits with 0.")
            worker.stop()

        self._say("auth_service fires while other_service is down. The events are stored.")
        self._fire("create_users.py", "eve", "mallory")

        self._say("other_service starts again and receives the stored events, in order.")
        with self._listener() as worker:
            worker.expect_line("{'eve': 'eve@example.com'}")
            worker.expect_line("{'eve': 'eve@example.com', 'mallory': 'mallory@example.com'}")

            self._say("other_service is stopped.")
            worker.stop()

    def _listener(self) -> Program:
        command = ("lightbus", "run", "--log-format", "console")
        return Program("other_service", *command, environment=self._environment)

    def _fire(self, *command: str) -> None:
        with Program("auth_service", "python", *command, environment=self._environment) as program:
            program.expect_success()

    def _say(self, text: str) -> None:
        self._step += 1
        print(f"\n{painted(f'{self._step}/{STEPS}  {text}', BOLD)}", flush=True)


@contextlib.contextmanager
def environment(config: Path | None) -> Iterator[dict[str, str]]:
    """The environment of the services. The programs of this Python installation come first in PATH."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTBUS_")}
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    common = {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1"}
    if config is None:
        # A temporary home directory, so that the demo does not use the user's default file.
        with tempfile.TemporaryDirectory(prefix="lightbus-demo-") as home:
            yield {**common, "HOME": home, "XDG_STATE_HOME": home}
        return
    configured = {**common, "LIGHTBUS_CONFIG": str(config)}
    if "AMQP_URL" in common or "${AMQP_URL}" not in config.read_text():
        yield configured
        return
    print("Starting a private RabbitMQ node; other brokers are not affected.", flush=True)
    with running_node() as node:
        print(f"  {node.name}, port {node.amqp_port}", flush=True)
        yield {**configured, "AMQP_URL": node.url()}


def show(service: str, line: str) -> None:
    print(f"  {painted(f'{service:13} |', COLOURS[service])} {line}", flush=True)


def painted(text: str, colour: str) -> str:
    is_wanted = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return f"\x1b[{colour}m{text}\x1b[0m" if is_wanted else text


def exit_on_signal(number: int, _: object) -> NoReturn:
    # As an exception, so that every `with` ends what it started.
    raise SystemExit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, exit_on_signal)
    signal.signal(signal.SIGINT, exit_on_signal)
    parser = argparse.ArgumentParser(description="Fire and handle events with two services.")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=lambda name: Path(name).resolve(),
        nargs="?",
        const=HERE / "rabbitmq.yaml",
        help="configuration file  [without FILE: RabbitMQ; without --config: SQLite]",
    )
    config = parser.parse_args().config
    try:
        with environment(config) as found:
            Demo(found).run()
    except (DemoFailed, NodeFailed) as error:
        print(f"\n{painted(f'The demo failed: {error}.', RED)}", file=sys.stderr)
        sys.exit(1)
    print(f"\n{painted('Done: every fired event was handled.', GREEN)}")


if __name__ == "__main__":
    main()
