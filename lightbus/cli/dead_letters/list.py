"""``lightbus dead-letters list``: lists or counts dead letters."""

from __future__ import annotations

from typing import Any

import click

from lightbus.cli.support import dead_letter_display
from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import out
from lightbus.cli.support.dead_letter_selection import (
    filter_options,
    pop_filter,
    read_all,
)
from lightbus.cli.support.exit_codes import SUCCEEDED
from lightbus.cli.support.parameters import format_option
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.operations.dead_letter_export import summarize


@click.command("list")
@click.option(
    "--group-by",
    type=click.Choice(["error", "event", "listener"]),
    help="Show counts instead of each dead letter.",
)
@format_option("table", "json")
@filter_options
@bus_options
def list_(*, group_by: str | None, form: str, **options: Any) -> None:
    """List the dead letters of the service, oldest first."""
    selection = pop_filter(options)

    async def work(client: BusClient) -> int:
        letters = await read_all(client, selection)
        if group_by is not None:
            dead_letter_display.print_groups(letters, group_by, form)
        elif form == "json":
            out.write_json([summarize(letter) for letter in letters], indent=2)
        elif letters:
            dead_letter_display.print_table(letters)
        else:
            out.print_line("No dead letters." if selection.is_empty else "No dead letters match.")
        return SUCCEEDED

    run_with_client(options, work)
