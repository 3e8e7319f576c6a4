"""``lightbus tail``: shows events as services fire them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import err, out
from lightbus.cli.support.parameters import format_option
from lightbus.cli.support.running import run_until_stopped
from lightbus.client import BusClient
from lightbus.exceptions import UndecodableEvent
from lightbus.message import EventMessage
from lightbus.operations import tail as operations
from lightbus.operations.known_apis import known_api_names
from lightbus.operations.started import started


@click.command(short_help="Show events as they are fired.")
@click.argument("pattern", default="*")
@format_option("line", "json")
@bus_options
def tail(pattern: str, form: str, **options: Any) -> None:
    """Show the events of all services as they are fired, until Ctrl-C.

    PATTERN matches the names of events, such as 'auth.*' or '*.user_created'. By default, the
    command shows every event of the APIs that the bus module or the configuration names.

    Listeners still receive every event. Events that are fired faster than they can be shown are
    skipped.

    Exits with 0 if stopped, 1 if a broker failed, and 2 if the usage, the configuration or the bus
    module is wrong.
    """
    print_event = _print_json if form == "json" else _print_line

    async def work(client: BusClient) -> None:
        async with started(client), operations.tail(client, pattern) as events:
            _print_start(client, pattern)
            async for message in events:
                print_event(message)

    run_until_stopped(options, work)


def _print_start(client: BusClient, pattern: str) -> None:
    transports = sorted({client.transports.describe(api) for api in known_api_names(client)})
    where = ", ".join(transports) or "the default transport"
    err.print_line((f"Waiting for {pattern} on {where}. Press Ctrl-C to stop.", "dim"))


def _print_json(message: EventMessage) -> None:
    out.write_json(_as_json(message))


def _as_json(message: EventMessage) -> dict[str, Any]:
    return {
        "event": message.canonical_name,
        "id": message.id,
        "fired_at": message.fired_at.isoformat(),
        "service": message.service_name,
        "version": message.version,
        **({"traceparent": message.traceparent} if message.traceparent else {}),
        "fields": _raw_fields(message),
    }


def _print_line(message: EventMessage) -> None:
    time = message.fired_at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    out.print_line(
        (time, "dim"),
        " ",
        (message.canonical_name, "bold"),
        f" {_format_fields(message)} ",
        (f"{message.id} from {message.service_name or '?'}", "dim"),
    )


def _format_fields(message: EventMessage) -> str:
    try:
        fields = message.kwargs.items()
        return " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in fields)
    except (UndecodableEvent, RecursionError):
        return message.body.decode("utf-8", "replace")


def _raw_fields(message: EventMessage) -> Any:
    try:
        message.kwargs  # noqa: B018 - decodes the body
    except UndecodableEvent:
        return message.body.decode("utf-8", "replace")
    return msgspec.Raw(message.body)
