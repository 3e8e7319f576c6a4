"""``lightbus schema``: prints schemas of events and finds changes that break listeners."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.console import format_count, out
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED, WRONG_USAGE
from lightbus.cli.support.running import report_error
from lightbus.client import BusClient
from lightbus.operations.asyncapi import asyncapi_of
from lightbus.operations.started import started
from lightbus.schema.events import breaking_changes, read_schema, schema_of


@click.group(short_help="Print schemas of events, or find breaking changes.")
def schema() -> None:
    """Print schemas of events, or find changes that break listeners."""


@schema.command()
@bus_options
def dump(**options: Any) -> None:
    """Print the JSON Schema of the events of every registered API.

    The schema describes an object with one property per event, such as "auth.user_created". Its
    value has the parameters of the event.
    """
    try:
        found = schema_of(load_bus(**options).client.apis.values())
    except Exception as error:  # a hook, or a class in a hint, may raise any
        sys.exit(report_error(error))
    out.write_json(found, indent=2)


@schema.command(short_help="Print an AsyncAPI document of the service.")
@click.option(
    "--api-version",
    default="1",
    show_default=True,
    metavar="VERSION",
    help="Version of the document.",
)
@bus_options
def asyncapi(*, api_version: str, **options: Any) -> None:
    """Print an AsyncAPI 3.0 document of the events that the service fires and listens for.

    The command calls the on_start hooks, which may add listeners. It does not connect to a broker.
    """
    try:
        client = load_bus(**options).client
        found = asyncio.run(_asyncapi(client, api_version))
    except Exception as error:  # a hook may raise any
        sys.exit(report_error(error))
    out.write_json(found, indent=2)


async def _asyncapi(client: BusClient, version: str) -> dict[str, Any]:
    try:
        async with started(client):
            return asyncapi_of(client, version=version)
    finally:
        await client.close_async()


@schema.command(short_help="Find changes that break listeners.")
@click.argument("old", type=click.Path(path_type=Path))
@bus_options
def check(old: Path, **options: Any) -> None:
    """Compare the events of every registered API with the file OLD, an earlier output of `lightbus
    schema dump`, and show each change that breaks listeners.

    Exits with 0 if no change breaks a listener, 1 if one does, and 2 if OLD, the configuration or
    the bus module is wrong.
    """
    try:
        before = read_schema(old)
        after = schema_of(load_bus(**options).client.apis.values())
    except Exception as error:  # a hook, or a class in a hint, may raise any
        report_error(error)
        sys.exit(WRONG_USAGE)  # FAILED would mean that a change breaks a listener
    changes = list(breaking_changes(before, after))
    for change in changes:
        out.print_line((change.location, "bold"), f": {change.difference}.")
        out.print_line(f"    {change.consequence}")
    if changes:
        sys.exit(FAILED)
    out.print_line(f"No breaking changes in {format_count(len(before['properties']), 'event')}.")
    sys.exit(SUCCEEDED)
