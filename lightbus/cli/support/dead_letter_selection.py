"""The options that select dead letters, and reading the selected ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
import click

from lightbus.cli.support.console import err
from lightbus.cli.support.parameters import TimeType
from lightbus.client import BusClient
from lightbus.operations.dead_letters import DeadLetters, Filter
from lightbus.transport.features import DeadLetter

Command = TypeVar("Command", bound=Callable[..., Any])

ids_argument = click.argument("ids", nargs=-1, metavar="[ID...]")
all_option = click.option("--all", "is_all", is_flag=True, help="All dead letters.")

_FILTERS = (
    click.option("--listener", metavar="NAME", help="Only of this listener."),
    click.option(
        "--event", metavar="PATTERN", help="Only of this event; * matches any text, as in 'auth.*'."
    ),
    click.option(
        "--error", metavar="PATTERN", help="Only with this exception type, such as KeyError."
    ),
    click.option("--since", type=TimeType(), help="Only dead-lettered at TIME or later."),
    click.option("--until", type=TimeType(), help="Only dead-lettered before TIME."),
)


def filter_options(command: Command) -> Command:
    """Add to a command the options that `pop_filter` reads."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def pop_filter(options: dict[str, Any], ids: tuple[str, ...] = ()) -> Filter:
    """Remove the values of `filter_options` from `options` and return them as a filter."""
    names = ("listener", "event", "error", "since", "until")
    return Filter(ids=frozenset(ids), **{name: options.pop(name) for name in names})


def pop_selection(options: dict[str, Any], ids: tuple[str, ...], *, is_all: bool) -> Filter:
    """Do what `pop_filter` does, for a command that changes dead letters. The filter excludes those
    of events that fail after now, because a replayed event may fail again.

    Raises:
        click.UsageError: Neither IDs nor filters nor `is_all` select anything.
    """
    selection = pop_filter(options, ids)
    if selection.is_empty and not is_all:
        raise click.UsageError("Select dead letters: give IDs, filter options or --all.")
    now = datetime.now(UTC)
    return attrs.evolve(selection, until=min(selection.until or now, now))


async def read_all(client: BusClient, selection: Filter) -> list[DeadLetter]:
    """Return the dead letters that `selection` selects."""
    letters = DeadLetters(client).matching(selection)
    async with contextlib.aclosing(letters):
        return [letter async for letter in letters]


def report_missing(ids: Iterable[str], letters: Iterable[DeadLetter]) -> bool:
    """Print each of `ids` that none of `letters` has; return whether there are any."""
    found = [letter.message.id for letter in letters]
    missing = [given for given in ids if not any(one.startswith(given) for one in found)]
    for event_id in missing:
        err.print_line((f"No dead letter has the ID {event_id}.", "red"))
    return bool(missing)
