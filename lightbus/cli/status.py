"""``lightbus status``: shows how many events each listener has, and in which state."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import out
from lightbus.cli.support.parameters import format_option
from lightbus.cli.support.running import run_until_stopped
from lightbus.client import BusClient
from lightbus.operations.started import started
from lightbus.operations.status import ListenerStatus, Status


@click.command(short_help="Show the backlog of each listener.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="SECONDS",
    help="Refresh every SECONDS (default: 2), until Ctrl-C.",
)
@format_option("table", "json")
@bus_options
def status(*, watch: float | None, form: str, **options: Any) -> None:
    """Show the number of events and workers of each listener.

    \b
    waiting    not yet delivered to a worker
    in flight  delivered, and not yet acknowledged
    delayed    to be retried later
    dead       dead letters
    workers    connected workers
    ?          the broker does not report the number
    never ran  the listener has no queue yet

    The command calls the on_start hooks, which may add listeners.

    Exits with 0 on success, 1 if a broker failed, and 2 if the usage, the configuration or the bus
    module is wrong.
    """  # noqa: D301 - click needs the character \b

    async def work(client: BusClient) -> None:
        async with started(client):
            if form == "json":
                await _print_json(Status(client), watch)
            else:
                await _print_tables(Status(client), watch)

    run_until_stopped(options, work)


async def _print_json(status: Status, watch: float | None) -> None:
    while True:
        listeners = [_as_json(listener) for listener in await status.listeners()]
        out.write_json(listeners, indent=0 if watch else 2)
        if watch is None:
            return
        await asyncio.sleep(watch)


async def _print_tables(status: Status, watch: float | None) -> None:
    if watch is not None and out.is_terminal and not out.is_dumb_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(_table(await status.listeners()), refresh=True)
                await asyncio.sleep(watch)
    # Elsewhere, a table cannot be redrawn in place: print each below the last.
    while True:
        out.print(_table(await status.listeners()))
        if watch is None:
            return
        await asyncio.sleep(watch)


def _as_json(listener: ListenerStatus) -> dict[str, Any]:
    return {
        "listener": listener.name,
        "api": listener.api_name,
        **_numbers(listener),
        "dead_in_service": listener.dead_in_service,
    }


def _numbers(listener: ListenerStatus) -> dict[str, int | None]:
    stats = listener.stats
    return {
        "waiting": stats.waiting if stats else None,
        "taken": stats.in_flight if stats else None,
        "delayed": stats.delayed if stats else None,
        "dead": listener.dead,
        "workers": stats.workers if stats else None,
    }


def _table(listeners: list[ListenerStatus]) -> Table | Group | str:
    if not listeners:
        return "No listeners. Neither the bus module nor its on_start hooks add one."
    table = Table("listener", "API", box=None, pad_edge=False)
    for heading in ("waiting", "in flight", "delayed", "dead", "workers"):
        table.add_column(heading, justify="right")
    for listener in listeners:
        table.add_row(listener.name, listener.api_name, *_cells(listener))
    if all(listener.dead is not None for listener in listeners):
        return table
    return Group(table, _dead_in_service(listeners[0].dead_in_service))


def _cells(listener: ListenerStatus) -> list[Text]:
    numbers = _numbers(listener)
    cells = {
        name: Text("?" if number is None else f"{number:,}") for name, number in numbers.items()
    }
    if listener.stats is None:
        cells["waiting"] = Text("never ran", "yellow")
    if listener.dead:
        cells["dead"].stylize("red")
    if numbers["workers"] == 0:
        cells["workers"].stylize("yellow")
    return list(cells.values())


def _dead_in_service(total: int | None) -> str:
    if total is None:
        return "Dead letters of the service: unknown while a client reads them."
    return f"Dead letters of the service: {total:,}."
