"""``lightbus fire``: fires one event."""

from __future__ import annotations

import sys
from typing import Any

import click

from lightbus.cli.support.bus_options import bus_options, load_client
from lightbus.cli.support.console import discard, err
from lightbus.cli.support.exit_codes import SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.parameters import EventNameType
from lightbus.cli.support.running import report_error
from lightbus.client import BusClient
from lightbus.encoding.json_codec import FieldsDecoder, encode
from lightbus.encoding.json_input import read_json


def _parse_pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE.")
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice.")
        found[name] = text
    return found


@click.command(short_help="Fire one event.")
@click.argument("event", metavar=EventNameType.name, type=EventNameType())
@click.argument("arguments", nargs=-1, callback=_parse_pairs, metavar="[NAME=VALUE]...")
@bus_options
def fire(event: tuple[str, str], arguments: dict[str, str], **options: Any) -> None:
    """Fire an event of a registered API, and print its ID once the broker has confirmed it.

    A VALUE is used as text if the declared type of the parameter accepts text, as a string or a
    date does. Otherwise it is parsed as JSON if possible: age=3 is a number, and name='"3"' is a
    string.

    Exits with 0 if the broker confirmed the event, 1 if it did not, and 2 if the usage, the
    configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    api_name, event_name = event
    try:
        client = load_client(**options)
        given = _parse_arguments(client, api_name, event_name, arguments)
        message = client.publisher.message(api_name, event_name, given)
        client.fire(message)
        client.close()
    except Exception as error:  # a hook may raise any
        sys.exit(report_error(error))
    try:
        click.echo(message.id)
    except OSError as error:
        # The event is stored, so the command succeeds: a failure would make the user fire it again.
        if not isinstance(error, BrokenPipeError):
            err.print_line(f"Fired {message.id}. Cannot write the output: {error.strerror}.")
        discard("stdout")
    sys.exit(SUCCEEDED)


def _parse_arguments(
    client: BusClient, api_name: str, event_name: str, arguments: dict[str, str]
) -> dict[str, Any]:
    api = client.apis.get(api_name)
    declared = api.event(event_name).parameters if api is not None else {}
    types = {name: parameter.type for name, parameter in declared.items()}
    return {name: _parse_value(text, types.get(name, Any)) for name, text in arguments.items()}


def _parse_value(text: str, type_: Any) -> Any:
    if type_ is not Any and _accepts_text(type_, text):
        return text
    try:
        return read_json(text)
    except (ValueError, RecursionError):
        return text


def _accepts_text(type_: Any, text: str) -> bool:
    try:
        FieldsDecoder({"value": type_}, keeps_others=False).decode(encode({"value": text}))
    except Exception:  # a user's class may raise any exception
        return False
    return True
