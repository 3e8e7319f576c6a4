"""``lightbus dead-letters show``: shows all details of dead letters."""

from __future__ import annotations

from typing import Any

import click

from lightbus.cli.support import dead_letter_display
from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import out
from lightbus.cli.support.dead_letter_selection import read_all, report_missing
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.parameters import format_option
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.operations.dead_letter_export import export
from lightbus.operations.dead_letters import Filter


@click.command(short_help="Show all details of dead letters.")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@format_option("table", "json")
@bus_options
def show(*, ids: tuple[str, ...], form: str, **options: Any) -> None:
    """Show all details of dead letters: the parameters, the error, its traceback and the times.

    Give whole IDs, or at least their first eight characters.
    """

    async def work(client: BusClient) -> int:
        letters = await read_all(client, Filter(ids=frozenset(ids)))
        if form == "json":
            out.write_json([export(letter) for letter in letters], indent=2)
        else:
            for letter in letters:
                dead_letter_display.print_details(letter)
        return FAILED if report_missing(ids, letters) else SUCCEEDED

    run_with_client(options, work)
