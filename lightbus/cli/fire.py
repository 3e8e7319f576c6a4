"""``lightbus fire``: one event, from the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from lightbus.cli.console import discard, err
from lightbus.cli.loading import (
    API_EVENT,
    ASKED_TO_STOP,
    api_and_event,
    bus_options,
    load_client,
    report,
)
from lightbus.cli.output import set_up_logging
from lightbus.client import BusClient
from lightbus.encoding.json_codec import FieldsDecoder, encode
from lightbus.encoding.json_input import read_json


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not of the form name=value.")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice.")
        found[name] = text
    return found


@click.command(short_help="Fire one event.")
@click.argument("event", metavar=API_EVENT, callback=lambda _, __, value: api_and_event(value))
@click.argument("arguments", nargs=-1, callback=_pairs, metavar="[NAME=VALUE]...")
@bus_options
def fire(event: tuple[str, str], arguments: dict[str, str], **options: Any) -> None:
    """Fire an event of a registered API, and print its id once it is stored.

    A value is text where the type that the event is declared with takes it so, such as a date or a
    name. Otherwise it is JSON where it can be read so: age=3 is a number, name='"3"' a text.

    Exits with 0 once the event is stored, 1 where it was not, and 2 when the usage, the
    configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    api_name, event_name = event
    try:
        client = load_client(**options)
        given = _read(client, api_name, event_name, arguments)
        message = client.message(api_name, event_name, given)
        client.fire(message)
        client.close()
    except Exception as error:  # a hook may raise any
        sys.exit(report(error))
    try:
        click.echo(message.id)
    except OSError as error:
        # It is stored all the same, and whoever is told otherwise fires it twice.
        if not isinstance(error, BrokenPipeError):
            err.print_line(f"{message.id} is stored. It could not be printed: {error.strerror}.")
        discard("stdout")
    sys.exit(ASKED_TO_STOP)


def _read(
    client: BusClient, api_name: str, event_name: str, arguments: dict[str, str]
) -> dict[str, Any]:
    api = client.apis.get(api_name)
    declared = api.event(event_name).parameters if api is not None else {}
    types = {name: parameter.type for name, parameter in declared.items()}
    return {name: _value(text, types.get(name, Any)) for name, text in arguments.items()}


def _value(text: str, type_: Any) -> Any:
    if type_ is not Any and _takes(type_, text):
        return text
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        return text


def _takes(type_: Any, text: str) -> bool:
    try:
        FieldsDecoder({"value": type_}, keeps_others=False).decode(encode({"value": text}))
    except Exception:  # a user's class may raise any
        return False
    return True
