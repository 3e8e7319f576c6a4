"""What the commands share that work on a bus: its options, and how it is found."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from lightbus import config
from lightbus.bus import Bus, get_bus
from lightbus.cli.console import err
from lightbus.cli.signals import STOP_SIGNALS, signals_of_children_kept
from lightbus.client import BusClient
from lightbus.exceptions import ConfigError, InvalidName, LightbusException
from lightbus.transport.features import Capability

Command = TypeVar("Command", bound=Callable[..., Any])

ASKED_TO_STOP = 0
FAILED = 1
WRONG_USAGE = 2

# Of an argument that names an event
API_EVENT = "API.EVENT"


def _not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    # An unset shell variable leaves an empty option. Using the default would hide that.
    if value == "":
        raise click.BadParameter("it is empty.")
    return value


_OPTIONS = (
    click.option(
        "-b",
        "--bus",
        "module",
        metavar="MODULE",
        callback=_not_empty,
        help="The bus module.  [default: $LIGHTBUS_MODULE, `bus` in the config file, or bus]",
    ),
    click.option("-s", "--service-name", callback=_not_empty, help="Whose listeners these are."),
    click.option(
        "-p", "--process-name", callback=_not_empty, help="Names this process at the broker."
    ),
    click.option(
        "--config",
        "config_file",
        metavar="FILE",
        callback=_not_empty,
        help="YAML, JSON or TOML.  [default: $LIGHTBUS_CONFIG or ./lightbus.yaml]",
    ),
)


def bus_options(command: Command) -> Command:
    """Give a command the options that `load_bus` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def api_and_event(value: str) -> tuple[str, str]:
    """Return the names of the API and the event that an argument such as ``auth.user_created`` has.

    Raises:
        click.BadParameter: It has not that form.
    """
    api_name, dot, event_name = value.rpartition(".")
    if not (api_name and dot and event_name):
        raise click.BadParameter(f"{value!r} is not of the form api.event.")
    return api_name, event_name


def cancel_on_signals() -> None:
    """Have SIGINT and SIGTERM cancel the running task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checker
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, task.cancel)


def report(error: Exception) -> int:
    """Tell of `error` in a line, and return the exit code for it."""
    text = (
        str(error) if isinstance(error, LightbusException) else f"{type(error).__name__}: {error}"
    )
    err.print_line(("Error:", "red"), f" {text}")
    return WRONG_USAGE if isinstance(error, ConfigError | InvalidName) else FAILED


def run_looking(
    options: dict[str, Any], look: Callable[[BusClient], Coroutine[Any, Any, None]]
) -> NoReturn:
    """Await `look` with the client of the bus that `options` lead to, until it ends or someone
    presses Ctrl-C; then end the process.
    """
    try:
        with signals_of_children_kept():
            asyncio.run(look(load_client(**options)))
    except Exception as error:  # a hook may raise any
        sys.exit(report(error))
    except asyncio.CancelledError:
        pass
    sys.exit(ASKED_TO_STOP)


def named_bus_module(module: str | None) -> str | None:
    """Return the bus module that the command line, the environment or the config file names."""
    return module or os.environ.get("LIGHTBUS_MODULE") or config.load().bus_module


def load_bus(
    *,
    module: str | None,
    service_name: str | None,
    process_name: str | None,
    config_file: str | None,
) -> Bus:
    """Return the bus that the command line and the environment lead to.

    Raises:
        ConfigError: There is none, or its configuration is wrong.
    """
    config.command_line.config_file = config_file
    config.command_line.service_name = service_name
    config.command_line.process_name = process_name
    # `python -m` finds modules of the current folder; a console script has to be told.
    sys.path.insert(0, str(Path.cwd()))
    return get_bus(named_bus_module(module))


def load_client(**options: Any) -> BusClient:
    """Return the client of the bus that `load_bus` returns, for one who acts from outside of the
    processes of a service. Where that cannot work, a warning says so.

    Raises:
        ConfigError: As `load_bus` says.
    """
    client = load_bus(**options).client
    for api_name in client.one_api_of_each_place():
        if reason := client.lacking(api_name).get(Capability.SHARED):
            err.print_line(("Warning:", "yellow"), f" {reason} This command runs in another.")
    return client
