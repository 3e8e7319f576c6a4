"""``lightbus topology``: compares the objects at the brokers with the topology of the bus."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import attrs
import click
from rich.table import Table
from rich.text import Text

from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.console import err, out
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.parameters import EventNameType, format_option
from lightbus.cli.support.progress import QueueProgress
from lightbus.cli.support.running import report_error
from lightbus.cli.support.signals import ForkSafeSignals, cancel_on_signals
from lightbus.client import BusClient
from lightbus.operations.topology import topology_of
from lightbus.transport.records import BrokerObject, MigrationProgress, ObjectState

_COLOURS = {ObjectState.OK: "green", ObjectState.UNUSED: "yellow", ObjectState.UNKNOWN: "dim"}


@click.command(short_help="Compare or migrate the objects at the brokers.")
@click.option(
    "--migrate",
    is_flag=True,
    help="Declare missing objects and change those that differ. Their events are kept.",
)
@click.option(
    "--unwanted",
    multiple=True,
    type=EventNameType(),
    help="Former event of a listener, whose binding is to be removed. Not needed for the events of "
    "registered APIs. Can be given several times.",
)
@format_option("table", "json")
@bus_options
def topology(
    *, migrate: bool, unwanted: tuple[tuple[str, str], ...], form: str, **options: Any
) -> None:
    """Compare the objects at the brokers with the topology of the bus.

    The topology has the queues and bindings of each listener, and all objects that are needed to
    fire the events of the registered APIs. The command calls the on_start hooks, which may add
    listeners. Without --migrate, it changes nothing at the brokers.

    With --migrate, it changes the objects to match the topology, and loses no event. Stop the
    workers of the service first. You can stop a migration at any point and run it again; some
    events may then be delivered twice.

    Queues that no listener of the bus uses are shown as unused, if the broker reports them. Delete
    them with `lightbus listeners remove`.

    Exits with 0 if all objects match, 1 if one is missing or differs or a broker failed, and 2 if
    the usage, the configuration or the bus module is wrong.
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
        async with topology_of(client, former_events=unwanted) as known:
            if migrate:
                with QueueProgress() as progress:
                    await known.migrate(on_progress=partial(_draw, progress))
            found = await known.compare()
    finally:
        await client.close_async()
    if form == "json":
        out.write_json([_as_json(one) for one in found], indent=2)
    else:
        _print_table(found)
    return SUCCEEDED if all(one.state.is_good for one in found) else FAILED


def _as_json(found: BrokerObject) -> dict[str, str]:
    return {**attrs.asdict(found), "state": found.state.value}


def _print_table(objects: list[BrokerObject]) -> None:
    if not objects:
        out.print_line("Nothing to compare: the transports of this bus declare no objects.")
        return
    table = Table("kind", "name", "state", "details", box=None, pad_edge=False)
    table.columns[1].overflow = "fold"
    for found in objects:
        colour = _COLOURS.get(found.state, "red")
        table.add_row(found.kind, found.name, Text(found.state.value, colour), _details(found))
    out.print(table)


def _details(found: BrokerObject) -> str:
    empty = "''"
    difference = (
        f"{found.argument} is {found.actual or empty}, expected {found.wanted or empty}."
        if found.argument
        else ""
    )
    return f"{difference} {found.note}".strip()


def _draw(progress: QueueProgress, now: MigrationProgress) -> None:
    progress.draw(
        now.name,
        moved=now.moved,
        left=now.left,
        is_done=now.is_done,
        status="done" if now.is_done else f"{now.left:,} left",
    )
