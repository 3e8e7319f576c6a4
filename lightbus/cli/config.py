"""``lightbus config``: whether the configuration is right, and what it may say."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightbus import config as configuration
from lightbus.cli.loading import ASKED_TO_STOP, config_options, report, take_over
from lightbus.client import BusClient
from lightbus.config_schema import schema_of_config
from lightbus.exceptions import LightbusException

_err = Console(stderr=True)


@click.group()
def config() -> None:
    """Check the configuration, or show what it may say."""


@config.command(short_help="Read the configuration, and show what it comes to.")
@config_options
def check(**options: Any) -> None:
    """Read the config file, the environment and these options, and show what they come to.

    What a bus module itself gives to create() is not looked at, and no broker is asked.

    Exits with 0 where it is right, and 2 where it is not.
    """
    try:
        take_over(**options)
        loaded = configuration.load()
        client = BusClient(loaded)
    except LightbusException as error:
        sys.exit(report(error, _err))
    out = Console()
    out.print(f"[green]Right:[/] {escape(loaded.source)}", highlight=False)
    out.print(f"service {escape(loaded.service_name)}, process {escape(loaded.process_name())}")
    table = Table(
        "API", "transport", "acknowledgement_timeout", "max_attempts", "fire_timeout", box=None
    )
    for name, api in loaded.apis.items():
        table.add_row(
            escape(name),
            escape(client.transport_described(name)),
            f"{api.acknowledgement_timeout:g} s",
            str(api.max_attempts),
            f"{api.fire_timeout:g} s",
        )
    out.print(table)
    sys.exit(ASKED_TO_STOP)


@config.command()
def schema() -> None:
    """Print the JSON Schema of a config file, for editors and checks."""
    click.echo(json.dumps(schema_of_config(), indent=2))
