"""``lightbus tail``: the events that services fire, as they come."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from lightbus.cli.loading import bus_options, cancel_on_signals, run_looking
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import UndecodableEvent
from lightbus.log import in_one_line
from lightbus.message import EventMessage
from lightbus.tail import tail as tailing

_err = Console(stderr=True)


@click.command(short_help="Show events as they are fired.")
@click.argument("pattern", default="*")
@click.option("--format", "form", type=click.Choice(["line", "json"]), default="line")
@bus_options
def tail(pattern: str, form: str, **options: Any) -> None:
    """Show events as they are fired, by whichever service, until Ctrl-C.

    PATTERN is of names of events, such as 'auth.*' or '*.user_created'; without it, every event of
    the APIs that the bus module or the configuration names is shown. Listeners get all of them,
    too. What comes too fast to be shown is left out.

    Exits with 0, with 1 where a broker failed, and with 2 when the usage, the configuration or the
    bus module is wrong.
    """
    set_up_logging("console", "warning")
    run_looking(options, lambda client: _show(client, pattern, is_json=form == "json"))


async def _show(client: BusClient, pattern: str, *, is_json: bool) -> None:
    cancel_on_signals()
    out = Console(emoji=False)
    try:
        async with client.started(), tailing(client, pattern) as events:
            places = sorted({client.transport_described(api) for api in client.known_api_names})
            told = (
                f"Waiting for {pattern}, at {', '.join(places or ['the default'])}. Ctrl-C stops."
            )
            _err.print(f"[dim]{escape(told)}[/]", highlight=False, soft_wrap=True)
            async for message in events:
                if is_json:
                    click.echo(json.dumps(_as_json(message)))
                else:
                    _print(out, message)
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


def _print(out: Console, message: EventMessage) -> None:
    time = message.fired_at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    fields = _fields(message)
    shown = (
        in_one_line(fields) if isinstance(fields, str) else " ".join(map(_field, fields.items()))
    )
    out.print(
        f"[dim]{time}[/] [bold]{escape(in_one_line(message.canonical_name))}[/] "
        f"{escape(shown)} [dim]{escape(in_one_line(message.id))} from "
        f"{escape(in_one_line(message.service_name or '?'))}[/]",
        highlight=False,
        soft_wrap=True,
    )


def _field(field: tuple[str, Any]) -> str:
    return f"{in_one_line(field[0])}={in_one_line(json.dumps(field[1], ensure_ascii=False))}"


def _fields(message: EventMessage) -> Any:
    try:
        return message.kwargs
    except UndecodableEvent:
        return message.body.decode("utf-8", "replace")
