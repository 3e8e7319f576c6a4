"""``lightbus config``: whether the configuration is right, and what it may say."""

from __future__ import annotations

import sys
from typing import Any

import click

from lightbus import config as configuration
from lightbus.cli.console import out
from lightbus.cli.loading import ASKED_TO_STOP, bus_options, load_bus, named_bus_module, report
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import InvalidBusModule, LightbusException
from lightbus.operations.config_schema import schema_of_config


@click.group()
def config() -> None:
    """Check the configuration, or show what it may say."""


@config.command(short_help="Read the configuration, and show what it comes to.")
@bus_options
def check(**options: Any) -> None:
    """Read the configuration as `lightbus run` does, and show what it comes to.

    That is of the bus that the bus module makes; where there is none, of the config file, the
    environment and these options. No broker is asked.

    Exits with 0 where it is right, and 2 where it is not, or where the bus module is wrong.
    """
    set_up_logging("console", "warning")
    try:
        client = _client(options)
        found, process_name = client.config, client.config.process_name()
        described = {name: client.transport_described(name) for name in found.apis}
    except LightbusException as error:
        sys.exit(report(error))
    out.print_line(("Right:", "green"), f" {found.source}")
    out.print_line(f"service {found.service_name}, process {process_name}")
    for name, api in found.apis.items():
        out.print_line((name, "bold"), f": {described[name]}")
        out.print_line(
            f"    acknowledgement_timeout {api.acknowledgement_timeout:g} s, "
            f"max_attempts {api.max_attempts}, on_error {api.on_error}, "
            f"fire_timeout {api.fire_timeout:g} s"
        )
    sys.exit(ASKED_TO_STOP)


def _client(options: dict[str, Any]) -> BusClient:
    try:
        return load_bus(**options).client
    except InvalidBusModule as error:
        if not error.is_missing or named_bus_module(options["module"]):
            raise
        return BusClient(configuration.load())


@config.command()
def schema() -> None:
    """Print the JSON Schema of a config file, for editors and checks."""
    out.write_json(schema_of_config(), indent=2)
