"""Lets a person correct the parameters of a dead letter in an editor."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import click
import msgspec

from lightbus.cli.console import to_json
from lightbus.encoding import json_codec
from lightbus.encoding.json_input import DuplicateKey, read_json
from lightbus.exceptions import UndecodableEvent
from lightbus.log import in_one_line
from lightbus.transport.features import DeadLetter


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question. Under `asyncio.run`, it would cancel a task that cannot be
    cancelled while it waits for the answer.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def edited(letter: DeadLetter) -> bytes | None:
    """Return the edited body of the letter; None to leave the letter unchanged.

    Raises:
        click.ClickException: The editor cannot be run, or failed.
    """
    text = _editable(letter)
    while True:
        # In a thread: the connection must live for as long as someone edits.
        changed = await asyncio.to_thread(_edit, text)
        if changed is None:
            return None
        try:
            return _body_of(changed)
        except (UndecodableEvent, DuplicateKey) as error:
            question = f"{in_one_line(error)} Edit again?"
        with interruptible():
            if not click.confirm(question, default=True, err=True):
                return None
        text = changed


def _editable(letter: DeadLetter) -> bytes:
    message = letter.message
    try:
        message.kwargs  # noqa: B018 - reading them is what decodes them
    except UndecodableEvent:
        return message.body
    return to_json(msgspec.Raw(message.body), indent=2, is_ascii=False).encode() + b"\n"


def _edit(text: bytes) -> bytes | None:
    try:
        return click.edit(text, extension=".json")
    except click.ClickException as error:
        reason = error.message
    except ValueError as error:
        reason = f"The name of the editor cannot be read: {error}"
    raise click.ClickException(
        f"{reason}. The dead letter is unchanged. Set EDITOR or VISUAL to another editor."
    )


def _body_of(changed: bytes) -> bytes:
    try:
        text = changed.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UndecodableEvent(f"The edited text is not UTF-8: {error}.") from error
    body = text.encode()
    json_codec.decode(body)
    # What the codec decodes can still be too deep for these.
    with contextlib.suppress(RecursionError):
        read_json(text)
        body = msgspec.json.format(body, indent=-1)
    return body
