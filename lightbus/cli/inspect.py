"""``lightbus inspect``: shows where one event is."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import err, out
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.operations.dead_letters import SHORT_ID
from lightbus.operations.find import FoundEvent, find_event
from lightbus.operations.started import started
from lightbus.transport.failure import Failure
from lightbus.transport.records import EventLocation


@click.command(short_help="Show where an event is.")
@click.argument("event_id", metavar="ID")
@bus_options
def inspect(event_id: str, **options: Any) -> None:
    """Show where the event with this ID is: in the queues of listeners, or among the dead letters
    of the service.

    Give the whole ID, or at least its first eight characters. An event that was handled is not
    found. Where a broker cannot search its queues, the command finds dead letters only.

    Exits with 0 if the event was found, 1 if it was not found or a broker failed, and 2 if the
    usage, the configuration or the bus module is wrong.
    """
    if len(event_id) < SHORT_ID:
        raise click.BadParameter(f"give at least {SHORT_ID} characters.", param_hint="ID")

    async def work(client: BusClient) -> int:
        async with started(client):
            found = await find_event(client, event_id)
        for event in found.events:
            _print_event(event)
        _print_gaps(event_id, is_found=bool(found.events), is_complete=found.is_complete)
        return SUCCEEDED if found.events else FAILED

    run_with_client(options, work)


def _print_gaps(event_id: str, *, is_found: bool, is_complete: bool) -> None:
    """Say that the event, or a part of what there is to know of it, was not found."""
    if not is_found and is_complete:
        err.print_line(
            f"Event {event_id} not found. It was handled, or it was never fired on this bus."
        )
    elif not is_found:
        err.print_line(
            f"Event {event_id} is not a dead letter. The broker cannot search its queues, so the "
            "event may still be in one."
        )
    elif not is_complete:
        err.print_line("Only dead letters are shown: the broker cannot search its queues.")


def _print_event(event: FoundEvent) -> None:
    message = event.message
    out.print_line((message.canonical_name, "bold"), f" {message.id}")
    sender = message.service_name or "?"
    out.print_line(f"    fired {_local(message.fired_at)} by {sender}, version {message.version}")
    out.print_line(f"    {message.body.decode('utf-8', 'replace')}")
    for location in event.locations:
        _print_location(location)
    for letter in event.dead_letters:
        _print_failure(letter.failure)


def _print_location(location: EventLocation) -> None:
    until = f", until {_local(location.until)}" if location.until else ""
    listener = f"{location.service_name}, listener {location.listener_name}"
    out.print_line(f"  {location.state.value} in {listener}: attempt {location.attempt}{until}")


def _print_failure(failure: Failure) -> None:
    listener = f"{failure.service_name}, listener {failure.listener}"
    error = f"{failure.error_type}: {failure.error_message}"
    when = _local(failure.failed_at)
    out.print_line(
        "  ", ("dead", "red"), f" in {listener}: attempt {failure.attempt}, {when}, {error}"
    )


def _local(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")
