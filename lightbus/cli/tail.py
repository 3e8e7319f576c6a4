"""``lightbus tail``: the events that services fire, as they come."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from lightbus.cli.console import err, out
from lightbus.cli.loading import bus_options, cancel_on_signals, run_looking
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import UndecodableEvent
from lightbus.message import EventMessage
from lightbus.operations.tail import tail as tailing


@click.command(short_help="Show events as they are fired.")
@click.argument("pattern", default="*")
@click.option("--format", "form", type=click.Choice(["line", "json"]), default="line")
@bus_options
def tail(pattern: str, form: str, **options: Any) -> None:
    """Show events of all services as they are fired, until Ctrl-C.

    PATTERN matches names of events, such as 'auth.*' or '*.user_created'. By default, the command
    shows every event of the APIs that the bus module or the configuration names. It takes no event
    from a listener. It skips events that come too fast to be shown.

    Exits with 0, 1 if a broker failed, and 2 if the usage, the configuration or the bus module is
    wrong.
    """
    set_up_logging("console", "warning")
    run_looking(options, lambda client: _show(client, pattern, is_json=form == "json"))


async def _show(client: BusClient, pattern: str, *, is_json: bool) -> None:
    cancel_on_signals()
    try:
        async with client.started(), tailing(client, pattern) as events:
            places = sorted({client.transport_described(api) for api in client.known_api_names})
            told = (
                f"Waiting for {pattern}, at {', '.join(places or ['the default'])}. Ctrl-C stops."
            )
            err.print_line((told, "dim"))
            async for message in events:
                if is_json:
                    out.write_json(_as_json(message))
                else:
                    _print(message)
    finally:
        await client.close_async()


def _as_json(message: EventMessage) -> dict[str, Any]:
    return {
        "event": message.canonical_name,
        "id": message.id,
        "fired_at": message.fired_at.isoformat(),
        "service": message.service_name,
        "version": message.version,
        **({"traceparent": message.traceparent} if message.traceparent else {}),
        "fields": _fields(message),
    }


def _print(message: EventMessage) -> None:
    time = message.fired_at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    out.print_line(
        (time, "dim"),
        " ",
        (message.canonical_name, "bold"),
        f" {_shown(message)} ",
        (f"{message.id} from {message.service_name or '?'}", "dim"),
    )


def _shown(message: EventMessage) -> str:
    try:
        fields = message.kwargs.items()
        return " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in fields)
    except (UndecodableEvent, RecursionError):
        return message.body.decode("utf-8", "replace")


def _fields(message: EventMessage) -> Any:
    try:
        message.kwargs  # noqa: B018 - reading them is what decodes them
    except UndecodableEvent:
        return message.body.decode("utf-8", "replace")
    return msgspec.Raw(message.body)
