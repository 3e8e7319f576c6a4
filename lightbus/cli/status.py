"""``lightbus status``: where the events of a service's listeners are."""

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
from lightbus.cli.support.running import run_until_stopped
from lightbus.client import BusClient
from lightbus.operations.status import ListenerStatus, Status

_NUMBERS = ("waiting", "taken", "delayed", "dead", "workers")


@click.command(short_help="Show where the events of each listener are.")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    metavar="SECONDS",
    help="Refresh every SECONDS (default: 2) until Ctrl-C.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@bus_options
def status(*, watch: float | None, form: str, **options: Any) -> None:
    """Show where the events of each listener are, and how many workers it has.

    Events are waiting, taken by workers, delayed or dead. A question mark stands for a number that
    the broker does not report.

    Exits with 0, 1 if a broker failed, and 2 if the usage, the configuration or the bus module is
    wrong.
    """

    async def work(client: BusClient) -> None:
        async with client.started():
            known = Status(client)
            if form == "json":
                await _print_json(known, watch)
            else:
                await _draw(known, watch)

    run_until_stopped(options, work)


async def _print_json(known: Status, watch: float | None) -> None:
    while True:
        found = [_as_json(one) for one in await known.listeners()]
        out.write_json(found, indent=0 if watch else 2)
        if watch is None:
            return
        await asyncio.sleep(watch)


async def _draw(known: Status, watch: float | None) -> None:
    if watch is not None and out.is_terminal and not out.is_dumb_terminal:
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(_table(await known.listeners()), refresh=True)
                await asyncio.sleep(watch)
    # What is not a terminal cannot be drawn over: each table comes below the last.
    while True:
        out.print(_table(await known.listeners()))
        if watch is None:
            return
        await asyncio.sleep(watch)


def _as_json(one: ListenerStatus) -> dict[str, Any]:
    return {
        "listener": one.name,
        "api": one.api_name,
        **_numbers(one),
        "dead_in_service": one.dead_in_service,
    }


def _numbers(one: ListenerStatus) -> dict[str, int | None]:
    stats = one.stats
    return {
        "waiting": stats.waiting if stats else None,
        "taken": stats.in_flight if stats else None,
        "delayed": stats.delayed if stats else None,
        "dead": one.dead,
        "workers": stats.workers if stats else None,
    }


def _table(found: list[ListenerStatus]) -> Table | Group | str:
    if not found:
        return "No listeners: the bus module, and its on_start hooks, add none."
    table = Table("listener", "API", box=None)
    for name in _NUMBERS:
        table.add_column(name, justify="right")
    for one in found:
        numbers = _numbers(one)
        shown = [Text("?" if number is None else f"{number:,}") for number in numbers.values()]
        if one.stats is None:
            shown[0] = Text("never ran", "yellow")
        if one.dead:
            shown[_NUMBERS.index("dead")].stylize("red")
        if numbers["workers"] == 0:
            shown[_NUMBERS.index("workers")].stylize("yellow")
        table.add_row(one.name, one.api_name, *shown)
    if all(one.dead is not None for one in found):
        return table
    return Group(table, _dead_in_service(found[0].dead_in_service))


def _dead_in_service(total: int | None) -> str:
    if total is None:
        return "Dead letters of the service: unknown while a client reads them."
    return f"Dead letters of the service: {total:,}."
