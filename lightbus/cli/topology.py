"""``lightbus topology``: what the brokers hold against what is wanted, and how it is changed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import attrs
import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.console import err, out
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.param_types import EventNameType
from lightbus.cli.support.running import report_error
from lightbus.cli.support.signals import ForkSafeSignals, cancel_on_signals
from lightbus.client import BusClient
from lightbus.operations.topology import topology_of
from lightbus.transport.records import BrokerObject, MigrationProgress, ObjectState

_COLOURS = {ObjectState.OK: "green", ObjectState.UNUSED: "yellow", ObjectState.UNKNOWN: "dim"}


@click.command(short_help="Compare what brokers hold with what is wanted.")
@click.option(
    "--migrate",
    is_flag=True,
    help="Make what is missing, and change what differs, events included.",
)
@click.option(
    "--unwanted",
    multiple=True,
    type=EventNameType(),
    help="An event that no listener is to get any more. Those of APIs that are registered are "
    "known; may be given several times.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@bus_options
def topology(
    *, migrate: bool, unwanted: tuple[tuple[str, str], ...], form: str, **options: Any
) -> None:
    """Compare the objects at the brokers with the topology of the bus.

    The topology is the queue of each listener with everything that it needs, and everything that
    firing the events of each registered API needs. Queues that no listener of the bus uses are
    shown as unused, if the broker reports them; `lightbus listeners remove` deletes them. Without
    --migrate, the command changes nothing.

    With --migrate, the command changes the objects to match, and loses no event. Stop the workers
    of the service first. You can stop or kill a migration at any point and start it again; some
    events may then be delivered twice.

    Exits with 0 if all objects match, 1 if something is missing or differs, or a broker failed, and
    2 if the usage, the configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    try:
        client = load_bus(**options).client
        with ForkSafeSignals():
            code = asyncio.run(_topology(client, unwanted, form, migrate=migrate))
    except Exception as error:  # a hook may raise any
        code = report_error(error)
    except asyncio.CancelledError:
        err.print_line("Stopped. No event is lost. Run the command again to continue.")
        code = FAILED
    sys.exit(code)


async def _topology(
    client: BusClient, unwanted: tuple[tuple[str, str], ...], form: str, *, migrate: bool
) -> int:
    cancel_on_signals()
    try:
        async with topology_of(client, unwanted=unwanted) as known:
            if migrate:
                with _progress() as progress:
                    await known.migrate(on_progress=_drawing(progress))
            found = await known.compare()
    finally:
        await client.close_async()
    if form == "json":
        out.write_json([_as_json(one) for one in found], indent=2)
    else:
        _show_table(found)
    return SUCCEEDED if all(one.state.is_good for one in found) else FAILED


def _as_json(found: BrokerObject) -> dict[str, str]:
    return {**attrs.asdict(found), "state": found.state.value}


def _show_table(found: list[BrokerObject]) -> None:
    if not found:
        out.print_line(
            "The brokers of this bus hold nothing that could differ from what is wanted."
        )
        return
    table = Table("kind", "name", "state", "what", box=None)
    table.columns[1].overflow = "fold"
    for one in found:
        colour = _COLOURS.get(one.state, "red")
        table.add_row(one.kind, one.name, Text(one.state.value, colour), _told(one))
    out.print(table)


def _told(found: BrokerObject) -> str:
    empty = "''"
    differs = f"{found.argument} is {found.actual or empty}, wanted {found.wanted or empty}."
    return " ".join(part for part in (differs if found.argument else "", found.note) if part)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
        console=err,
    )


def _drawing(progress: Progress) -> Callable[[MigrationProgress], None]:
    """Return what draws how far a migration is."""
    tasks: dict[str, TaskID] = {}

    def draw(now: MigrationProgress) -> None:
        if now.name not in tasks:
            tasks[now.name] = progress.add_task(now.name, told="")
        progress.update(
            tasks[now.name],
            completed=1 if now.is_done else now.moved,
            # Without a total, the bar only shows that something goes on.
            total=1 if now.is_done else (now.moved + now.left if now.left else None),
            told=f"{now.moved:,} moved, " + ("done" if now.is_done else f"{now.left:,} left"),
        )

    return draw
