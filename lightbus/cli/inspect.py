"""``lightbus inspect``: where one event is, and what has become of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from lightbus.cli.console import err, out
from lightbus.cli.loading import ASKED_TO_STOP, FAILED, bus_options, load_client, report
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.message import EventMessage
from lightbus.operations.dead_letters import SHORT_ID, DeadLetters, Filter
from lightbus.transport.features import DeadLetter
from lightbus.transport.records import EventLocation


@click.command(short_help="Show where one event is.")
@click.argument("event_id", metavar="ID")
@bus_options
def inspect(event_id: str, **options: Any) -> None:
    """Show where the event of this ID is: in which listeners' queues, and among the dead letters of
    the service. Eight characters of the ID, or more, are enough.

    RabbitMQ does not report which events wait in a queue, so there only dead letters are found. An
    event that was handled is not found.

    Exits with 0 if the event was found, 1 if it was not found or a broker failed, and 2 if the
    usage, the configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    if len(event_id) < SHORT_ID:
        raise click.BadParameter(f"give {SHORT_ID} characters or more.", param_hint="ID")
    try:
        found = asyncio.run(_inspect(load_client(**options), event_id))
    except Exception as error:  # a hook may raise any
        sys.exit(report(error))
    sys.exit(ASKED_TO_STOP if found else FAILED)


async def _inspect(client: BusClient, event_id: str) -> bool:
    wanted = Filter(ids=frozenset({event_id}))
    try:
        async with client.started():
            places, is_all_told = await _places(client, event_id)
            letters = [letter async for letter in DeadLetters(client).matching(wanted)]
    finally:
        await client.close_async()
    found = [place.message for place in places] + [letter.message for letter in letters]
    messages = {message.id: message for message in found}
    for message in messages.values():
        _print(message, _of(message, places), _of(message, letters))
    if not messages and is_all_told:
        err.print_line(f"No event {event_id} waits or is dead: it was handled, or not fired.")
    elif not messages:
        err.print_line(
            f"No dead letter is of event {event_id}. The broker does not report whether it waits."
        )
    elif not is_all_told:
        err.print_line(
            "The broker does not report which events wait, so only dead letters are shown."
        )
    return bool(messages)


async def _places(client: BusClient, event_id: str) -> tuple[list[EventLocation], bool]:
    places: list[EventLocation] = []
    is_all_told = True
    for api_name in client.one_api_of_each_place():
        found = await (await client.opened_transport(api_name)).find(event_id)
        is_all_told = is_all_told and found is not None
        places += found or []
    return places, is_all_told


def _of(message: EventMessage, found: Iterable[Any]) -> list[Any]:
    return [one for one in found if one.message.id == message.id]


def _print(message: EventMessage, places: list[EventLocation], letters: list[DeadLetter]) -> None:
    sender = message.service_name or "?"
    out.print_line((message.canonical_name, "bold"), f" {message.id}")
    out.print_line(f"    fired {_time(message.fired_at)} by {sender}, version {message.version}")
    out.print_line(f"    {message.body.decode('utf-8', 'replace')}")
    for place in places:
        until = f", until {_time(place.until)}" if place.until else ""
        where = _listener(place.service_name, place.listener_name)
        out.print_line(f"  {place.state.value} in {where}: attempt {place.attempt}{until}")
    for letter in letters:
        failure = letter.failure
        where = _listener(failure.service_name, failure.listener)
        error = f"{failure.error_type}: {failure.error_message}"
        when = _time(failure.failed_at)
        out.print_line(
            "  ", ("dead", "red"), f" in {where}: attempt {failure.attempt}, {when}, {error}"
        )


def _listener(service_name: str, listener_name: str) -> str:
    return f"{service_name}, listener {listener_name}"


def _time(time: datetime) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds")
