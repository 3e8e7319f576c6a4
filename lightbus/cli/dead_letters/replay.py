"""``lightbus dead-letters replay``: sends dead letters to their listeners again."""

from __future__ import annotations

from typing import Any

import attrs
import click

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.dead_letter_batch import Batch, run_batch
from lightbus.cli.support.dead_letter_editor import edit_body
from lightbus.cli.support.dead_letter_selection import (
    all_option,
    filter_options,
    ids_argument,
    pop_selection,
)
from lightbus.client import BusClient
from lightbus.operations.dead_letters import DeadLetters
from lightbus.transport.features import DeadLetter


@click.command(short_help="Send dead letters to their listeners again.")
@ids_argument
@all_option
@click.option("--edit", is_flag=True, help="Edit the parameters of each in an editor first.")
@filter_options
@bus_options
def replay(*, ids: tuple[str, ...], is_all: bool, edit: bool, **options: Any) -> None:
    """Send dead letters again, each to the listener that failed and to no other.

    Select them by ID, by listener, event, error or time, or use --all.

    You can stop the command at any point and run it again. An event that was in flight may then be
    delivered twice.
    """

    async def replay_one(client: BusClient, letter: DeadLetter) -> bool:
        message = letter.message
        if edit:
            body = await edit_body(letter)
            if body is None:
                return False
            message = attrs.evolve(message, body=body)
        await DeadLetters(client).replay(letter, message=message)
        return True

    batch = Batch(pop_selection(options, ids, is_all=is_all), replay_one, done="Replayed")
    run_batch(options, batch, shows_progress=not edit)
