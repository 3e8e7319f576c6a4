"""``lightbus listeners``: removes the queues of listeners that no longer exist."""

from __future__ import annotations

from typing import Any

import click

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import err, format_count
from lightbus.cli.support.exit_codes import SUCCEEDED
from lightbus.cli.support.prompts import confirm
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.operations.listener_queues import FoundQueue, ListenerQueues
from lightbus.operations.started import started


@click.group(short_help="Remove the queues of listeners that no longer exist.")
def listeners() -> None:
    """Remove the queues of listeners that no longer exist.

    `lightbus topology` shows these queues as unused.
    """


@listeners.command(short_help="Delete the queue of a listener.")
@click.argument("name")
@click.option("--api", metavar="NAME", help="API of the listener.  [default: every API]")
@click.option("--discard", is_flag=True, help="Also delete a queue that has events.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@bus_options
def remove(*, name: str, api: str | None, discard: bool, yes: bool, **options: Any) -> None:
    """Delete the queue of the listener NAME, which the service no longer has.

    The command refuses to delete the queue of a listener that the bus module adds or that a worker
    uses, and a queue with events unless --discard is given. It calls the on_start hooks, which may
    add listeners.

    Exits with 0 if the queue was deleted, 1 if that was refused or a broker failed, and 2 if the
    usage, the configuration or the bus module is wrong.
    """

    async def work(client: BusClient) -> int:
        async with started(client):
            queues = ListenerQueues(client)
            found = await queues.find(name, api)
            if not discard:
                queues.check_empty(found)
            if not yes:
                confirm(_question(found), abort=True)
            for one in found:
                lost = await queues.remove(one, discard=discard)
                listener = f"{one.queue.listener_name} on {one.queue.api_name}"
                err.print_line(
                    f"Deleted the queue of listener {listener}, with {format_count(lost, 'event')}."
                )
        return SUCCEEDED

    run_with_client(options, work)


def _question(found: list[FoundQueue]) -> str:
    names = ", ".join(f"{one.queue.listener_name} on {one.queue.api_name}" for one in found)
    events = sum(one.queue.events for one in found)
    lost = f" and its {format_count(events, 'event')}" if events else ""
    return f"Delete the queue of {names}{lost}?"
