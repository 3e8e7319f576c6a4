"""Converts dead letters to the JSON of exported files."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import msgspec

from lightbus.exceptions import UndecodableEvent
from lightbus.operations.dead_letters import LetterKey
from lightbus.transport.features import DeadLetter


def summarize(letter: DeadLetter) -> dict[str, Any]:
    """Return the event, the listener, the error and the times of `letter`, for a list."""
    message, failure = letter.message, letter.failure
    return {
        "id": message.id,
        "event": message.canonical_name,
        "listener": failure.listener,
        "attempt": failure.attempt,
        "error_type": failure.error_type,
        "error_message": failure.error_message,
        "first_failed_at": failure.first_failed_at.isoformat(),
        "failed_at": failure.failed_at.isoformat(),
    }


def export(letter: DeadLetter) -> dict[str, Any]:
    """Return all data of `letter`, for `msgspec` to encode.

    The parameters are a `msgspec.Raw`. If the body is not JSON, the result contains it in Base64
    instead.
    """
    message, failure = letter.message, letter.failure
    try:
        message.kwargs  # noqa: B018 - decodes the body
    except UndecodableEvent:
        body: dict[str, Any] = {"body_base64": base64.b64encode(message.body).decode()}
    else:
        body = {"parameters": msgspec.Raw(message.body)}
    return {
        **summarize(letter),
        "version": message.version,
        "fired_at": message.fired_at.isoformat(),
        "fired_by": message.service_name,
        "service": failure.service_name,
        "process": failure.process_name,
        "host": failure.hostname,
        "pid": failure.pid,
        "traceback": failure.traceback,
        **body,
    }


def key_of_exported(exported: dict[str, Any]) -> LetterKey:
    """Return the key of the dead letter that `export` returned as `exported`.

    Raises:
        KeyError: A field is missing.
        TypeError: A field has the wrong type.
        ValueError: A field has a wrong value.
    """
    return LetterKey(
        event_id=str(exported["id"]),
        listener=str(exported["listener"]),
        failed_at=datetime.fromisoformat(exported["failed_at"]),
    )
