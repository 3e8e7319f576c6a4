"""``lightbus config``: checks the configuration and prints its JSON Schema."""

from __future__ import annotations

import sys
from typing import Any

import click

from lightbus import config as configuration
from lightbus.bus import DEFAULT_MODULE
from lightbus.cli.support.bus_options import bus_options, load_bus, named_bus_module
from lightbus.cli.support.console import out
from lightbus.cli.support.exit_codes import SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.running import report_error
from lightbus.client import BusClient
from lightbus.exceptions import ConfigError, LightbusException
from lightbus.operations.config_schema import schema_of_config


@click.group()
def config() -> None:
    """Check the configuration, or print its JSON Schema."""


@config.command(short_help="Check the configuration and show its settings.")
@bus_options
def check(**options: Any) -> None:
    """Check the configuration and show the settings that `lightbus run` would use.

    These are the settings of the bus in the bus module. Without a bus module, they are those of the
    config file, the environment and the options below. The command does not connect to a broker.

    Exits with 0 if the configuration is valid, and 2 if it or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    try:
        client = _client(options)
        settings, process_name = client.config, client.config.process_name()
        transports = {name: client.transports.describe(name) for name in settings.apis}
    except LightbusException as error:
        sys.exit(report_error(error))
    out.print_line(("Valid:", "green"), f" {settings.source}")
    out.print_line(f"service {settings.service_name}, process {process_name}")
    for name, api in settings.apis.items():
        out.print_line((name, "bold"), f": {transports[name]}")
        out.print_line(
            f"    acknowledgement_timeout {api.acknowledgement_timeout:g} s, "
            f"max_attempts {api.max_attempts}, on_error {api.on_error}, "
            f"fire_timeout {api.fire_timeout:g} s"
        )
    sys.exit(SUCCEEDED)


def _client(options: dict[str, Any]) -> BusClient:
    try:
        return load_bus(**options).client
    except ConfigError as error:
        if named_bus_module(options["module"]) or not _is_without_bus_module(error):
            raise
        return BusClient(configuration.load())


def _is_without_bus_module(error: ConfigError) -> bool:
    missing = error.__cause__
    return isinstance(missing, ModuleNotFoundError) and missing.name == DEFAULT_MODULE


@config.command(short_help="Print the JSON Schema of the config file.")
def schema() -> None:
    """Print the JSON Schema of the config file, for editors and other tools."""
    out.write_json(schema_of_config(), indent=2)
