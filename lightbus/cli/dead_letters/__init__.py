"""``lightbus dead-letters``: one file a subcommand."""

from __future__ import annotations

import click

from lightbus.cli.dead_letters.discard import discard
from lightbus.cli.dead_letters.export import export
from lightbus.cli.dead_letters.list import list_
from lightbus.cli.dead_letters.replay import replay
from lightbus.cli.dead_letters.show import show


@click.group(short_help="List, replay or discard dead letters.")
def dead_letters() -> None:
    """Work with the dead letters of a service.

    A dead letter is an event that a listener could not handle. It is stored, with the error, until
    you replay or discard it.
    """


dead_letters.add_command(list_)
dead_letters.add_command(show)
dead_letters.add_command(replay)
dead_letters.add_command(discard)
dead_letters.add_command(export)
