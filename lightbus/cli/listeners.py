"""``lightbus listeners``: removes the queues of listeners that are gone."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from lightbus.cli.console import err
from lightbus.cli.letter_edit import interruptible
from lightbus.cli.loading import ASKED_TO_STOP, bus_options, load_client, report
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import ListenerQueueNotEmpty
from lightbus.log import in_one_line
from lightbus.operations.listener_queues import FoundQueue, ListenerQueues


@click.group(short_help="Remove the queues of listeners that are gone.")
def listeners() -> None:
    """Remove the queues of listeners that are gone. `lightbus topology` shows which these are."""


@listeners.command(short_help="Delete the queue of a listener.")
@click.argument("name")
@click.option("--api", help="Of the listener on this API.  [default: on every API]")
@click.option("--discard", is_flag=True, help="Lose the events in the queue.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@bus_options
def remove(*, name: str, api: str | None, discard: bool, yes: bool, **options: Any) -> None:
    """Delete the queue of a listener that the service no longer has.

    Refuses a listener that the bus module has or that a worker uses. Without --discard, it also
    refuses a queue with events. Like `lightbus topology`, it calls the on_start hooks to find all
    listeners.

    Exits with 0 if the queue was deleted, 1 if that was refused or a broker failed, and 2 if the
    usage, the configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    try:
        client = load_client(**options)
        asyncio.run(_remove(client, name, api, discard=discard, is_asked=not yes))
        code = ASKED_TO_STOP
    except click.Abort:
        raise
    except Exception as error:  # a hook may raise any
        code = report(error)
    sys.exit(code)


async def _remove(
    client: BusClient, name: str, api_name: str | None, *, discard: bool, is_asked: bool
) -> None:
    try:
        async with client.started():
            queues = ListenerQueues(client)
            found = await queues.find(name, api_name)
            if not discard:
                _check_empty(found)
            if is_asked:
                with interruptible():
                    click.confirm(in_one_line(_question(found)), abort=True, err=True)
            for one in found:
                lost = await queues.remove(one, discard=discard)
                queue = one.queue
                err.print_line(
                    f"Removed listener {queue.listener_name} on {queue.api_name}; "
                    f"{lost:,} events were lost with its queue."
                )
    finally:
        await client.close_async()


def _check_empty(found: list[FoundQueue]) -> None:
    for queue in (one.queue for one in found):
        if queue.events:
            raise ListenerQueueNotEmpty(queue.listener_name, queue.api_name, queue.events)


def _question(found: list[FoundQueue]) -> str:
    names = ", ".join(f"{one.queue.listener_name} on {one.queue.api_name}" for one in found)
    events = sum(one.queue.events for one in found)
    lost = f" and lose {events:,} events" if events else ""
    return f"Delete the queue of {names}{lost}?"
