"""``lightbus dead-letters discard``: deletes dead letters."""

from __future__ import annotations

import json
from typing import Any, TextIO

import attrs
import click

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import format_count
from lightbus.cli.support.dead_letter_batch import Batch, run_batch
from lightbus.cli.support.dead_letter_selection import (
    all_option,
    filter_options,
    ids_argument,
    pop_selection,
)
from lightbus.cli.support.prompts import confirm
from lightbus.client import BusClient
from lightbus.operations.dead_letter_export import key_of_exported
from lightbus.operations.dead_letters import LetterKey
from lightbus.transport.features import DeadLetter


@click.command(short_help="Delete dead letters.")
@ids_argument
@all_option
@click.option(
    "--exported",
    type=click.File(),
    metavar="FILE",
    help="Only the dead letters in FILE, which `export` wrote.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@filter_options
@bus_options
def discard(
    *, ids: tuple[str, ...], is_all: bool, exported: TextIO | None, yes: bool, **options: Any
) -> None:
    """Delete dead letters permanently.

    Select them by ID, by listener, event, error or time, or use --all.
    """
    keys = None if exported is None else _read_keys(exported)
    selection = pop_selection(options, ids, is_all=is_all or keys is not None)

    async def discard_one(_: BusClient, letter: DeadLetter) -> bool:
        await letter.discard()
        return True

    def check(count: int) -> None:
        if count and not yes:
            confirm(f"Permanently delete {format_count(count, 'dead letter')}?", abort=True)

    batch = Batch(attrs.evolve(selection, keys=keys), discard_one, done="Discarded", check=check)
    run_batch(options, batch)


def _read_keys(exported: TextIO) -> frozenset[LetterKey]:
    """Return the keys of the dead letters in a file that `export` wrote.

    Raises:
        click.BadParameter: A line is not an exported dead letter.
    """
    keys = set()
    for number, line in enumerate(exported, start=1):
        try:
            keys.add(key_of_exported(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise click.BadParameter(
                f"line {number} of {exported.name} is not an exported dead letter.",
                param_hint="--exported",
            ) from error
    return frozenset(keys)
