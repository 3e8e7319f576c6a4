"""The options of the commands that work on a bus, and loading the bus that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lightbus import config
from lightbus.bus import Bus, get_bus
from lightbus.cli.support.console import err
from lightbus.client import BusClient
from lightbus.operations.known_apis import one_api_per_broker
from lightbus.transport.features import SharedBroker, lists

Command = TypeVar("Command", bound=Callable[..., Any])


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
        help="Bus module.  [default: $LIGHTBUS_MODULE, `bus` in the config file, or bus]",
    ),
    click.option(
        "-s",
        "--service-name",
        metavar="NAME",
        callback=_not_empty,
        help="Override the configured service name.",
    ),
    click.option(
        "-p",
        "--process-name",
        metavar="NAME",
        callback=_not_empty,
        help="Override the configured process name.",
    ),
    click.option(
        "--config",
        "config_file",
        metavar="FILE",
        callback=_not_empty,
        help="Config file: YAML, JSON or TOML.  [default: $LIGHTBUS_CONFIG or ./lightbus.yaml]",
    ),
)


def bus_options(command: Command) -> Command:
    """Add to a command the options that `load_bus` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


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
    """Import the bus module and return its bus.

    Until the command ends, the options override the configuration of each bus that is created.

    Raises:
        ConfigError: The bus module or its configuration is missing or wrong.
    """
    overrides = config.Overrides(
        config_file=config_file, service_name=service_name, process_name=process_name
    )
    click.get_current_context().with_resource(config.apply_overrides(overrides))
    # Unlike `python -m`, a console script does not find modules of the current directory by itself.
    sys.path.insert(0, str(Path.cwd()))
    return get_bus(named_bus_module(module))


def load_client(**options: Any) -> BusClient:
    """Return the client of the bus, for a command that acts on the events of other processes.

    Prints a warning for each transport that only works within one process.

    Raises:
        ConfigError: As for `load_bus`.
    """
    client = load_bus(**options).client
    for api_name in one_api_per_broker(client):
        if not lists(client.transports.transport_class(api_name), SharedBroker):
            err.print_line(
                ("Warning:", "yellow"),
                f" The {client.transports.name(api_name)} transport keeps events in the memory of "
                "one process. This command runs in another.",
            )
    return client
