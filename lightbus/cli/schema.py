"""``lightbus schema``: what events look like, and whether a change of them breaks a listener."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from lightbus.cli.console import out
from lightbus.cli.loading import (
    ASKED_TO_STOP,
    FAILED,
    WRONG_USAGE,
    bus_options,
    load_bus,
    report,
)
from lightbus.client import BusClient
from lightbus.operations.asyncapi import asyncapi_of
from lightbus.schema.events import breaking_changes, read_schema, schema_of


@click.group(short_help="Show what events look like, and what breaks listeners.")
def schema() -> None:
    """Show what events look like, and find changes that break listeners."""


@schema.command()
@bus_options
def dump(**options: Any) -> None:
    """Print the JSON Schema of the events of every registered API.

    It is of an object that holds, by its name such as "auth.user_created", what an event carries.
    """
    try:
        found = schema_of(load_bus(**options).client.apis.values())
    except Exception as error:  # a hook, or a class in a hint, may raise any
        sys.exit(report(error))
    out.write_json(found, indent=2)


@schema.command(short_help="Print an AsyncAPI document of the service.")
@click.option("--api-version", default="1", show_default=True, help="The document's version.")
@bus_options
def asyncapi(*, api_version: str, **options: Any) -> None:
    """Print an AsyncAPI 3.0 document of the service: what it fires, and what it listens for.

    The on_start hooks of the bus module are run, for they add listeners; no broker is asked.
    """
    try:
        client = load_bus(**options).client
        found = asyncio.run(_asyncapi(client, api_version))
    except Exception as error:  # a hook may raise any
        sys.exit(report(error))
    out.write_json(found, indent=2)


async def _asyncapi(client: BusClient, version: str) -> dict[str, Any]:
    try:
        async with client.started():
            return asyncapi_of(client, version=version)
    finally:
        await client.close_async()


@schema.command(short_help="Find changes that break a listener.")
@click.argument("old", type=click.Path(path_type=Path))
@bus_options
def check(old: Path, **options: Any) -> None:
    """Compare the events of every registered API with OLD, which `lightbus schema dump` has printed
    before, and say which change breaks a listener, and why.

    Exits with 0 where none does, 1 where one does, and 2 when OLD, the configuration or the bus
    module is wrong.
    """
    try:
        before = read_schema(old)
        after = schema_of(load_bus(**options).client.apis.values())
    except Exception as error:  # likewise
        report(error)
        sys.exit(WRONG_USAGE)  # another code would say that a change breaks a listener
    found = list(breaking_changes(before, after))
    for change in found:
        out.print_line((change.place, "bold"), f": {change.what}.")
        out.print_line(f"    {change.why}")
    if found:
        sys.exit(FAILED)
    out.print_line(f"No listener breaks: {len(before['properties'])} events compared.")
    sys.exit(ASKED_TO_STOP)
