"""``lightbus fire``: one event, from the command line."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console

from lightbus.cli.loading import ASKED_TO_STOP, bus_options, load_bus, report
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.exceptions import LightbusException

_err = Console(stderr=True)


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not of the form name=value.")
        found[name] = text
    return found


@click.command()
@click.argument("event", metavar="API.EVENT")
@click.argument("arguments", nargs=-1, callback=_pairs, metavar="[NAME=VALUE]...")
@bus_options
def fire(event: str, arguments: dict[str, str], **options: Any) -> None:
    """Fire an event of a registered API, and print its id once it is stored.

    A value is JSON where it can be read so, and text otherwise: age=3 is a number, and name=adam a
    text, as is name='"3"'. Where the event is declared with the type str, it is always text.

    Exits with 0 once the event is stored, 1 where it was not, and 2 when the usage, the
    configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    api_name, dot, event_name = event.rpartition(".")
    if not (api_name and dot and event_name):
        raise click.BadParameter(f"{event!r} is not of the form api.event.", param_hint="API.EVENT")
    try:
        client = load_bus(**options).client
        given = _read(client, api_name, event_name, arguments)
        message = client.message(api_name, event_name, given)
        client.fire(message)
        client.close()
    except LightbusException as error:
        sys.exit(report(error, _err))
    click.echo(message.id)
    sys.exit(ASKED_TO_STOP)


def _read(
    client: BusClient, api_name: str, event_name: str, arguments: dict[str, str]
) -> dict[str, Any]:
    api = client.apis.get(api_name)
    declared = api.event(event_name).parameters if api is not None else {}
    texts = {name for name, parameter in declared.items() if parameter.annotation is str}
    return {
        name: text if name in texts else _json_or_text(text) for name, text in arguments.items()
    }


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
