"""Edits the parameters of a dead letter in the user's editor."""

from __future__ import annotations

import asyncio
import contextlib

import click
import msgspec

from lightbus.cli.support.console import to_json
from lightbus.cli.support.prompts import confirm
from lightbus.encoding import json_codec
from lightbus.encoding.json_input import DuplicateKey, read_json
from lightbus.exceptions import UndecodableEvent
from lightbus.transport.features import DeadLetter


async def edit_body(letter: DeadLetter) -> bytes | None:
    """Open the body of `letter` in an editor and return the edited body; None for no change.

    Raises:
        click.ClickException: The editor cannot be run, or failed.
    """
    text = _body_for_editor(letter)
    while True:
        # In a thread, so that the event loop keeps the connection alive.
        changed = await asyncio.to_thread(_edit, text)
        if changed is None:
            return None
        try:
            return _checked_body(changed)
        except (UndecodableEvent, DuplicateKey) as error:
            question = f"{error} Edit again?"
        if not confirm(question, default=True):
            return None
        text = changed


def _body_for_editor(letter: DeadLetter) -> bytes:
    message = letter.message
    try:
        message.kwargs  # noqa: B018 - decodes the body
    except UndecodableEvent:
        return message.body
    return to_json(msgspec.Raw(message.body), indent=2, is_ascii=False).encode() + b"\n"


def _edit(text: bytes) -> bytes | None:
    try:
        return click.edit(text, extension=".json")
    except click.ClickException as error:
        reason = error.message
    except ValueError as error:
        reason = f"Cannot parse the name of the editor: {error}"
    raise click.ClickException(
        f"{reason}. The dead letter is unchanged. Set EDITOR or VISUAL to another editor."
    )


def _checked_body(changed: bytes) -> bytes:
    try:
        text = changed.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UndecodableEvent(f"The edited text is not UTF-8: {error}.") from error
    body = text.encode()
    json_codec.decode(body)
    # The codec accepts deeper nesting than these two do.
    with contextlib.suppress(RecursionError):
        read_json(text)
        body = msgspec.json.format(body, indent=-1)
    return body
