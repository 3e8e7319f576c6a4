"""Calls of handlers, as a delivery makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from lightbus import EventMessage
from lightbus.encoding.json_codec import encode
from lightbus.handling.signatures import plan_call

FIELDS = {"username": "ann", "email": "a@b"}

Call = tuple[tuple[Any, ...], dict[str, Any]]


MESSAGE = EventMessage.create("auth", "user_created", FIELDS)


def message_of(fields: dict[str, Any]) -> EventMessage:
    return attrs.evolve(MESSAGE, body=encode(fields))


def called(
    handler: Callable[..., Any], *, fields: dict[str, Any] = FIELDS, is_known: bool = True
) -> Any:
    """Call `handler` as a delivery of these fields would."""
    plan = plan_call(handler, "auth.user_created", tuple(fields) if is_known else None)
    args, kwargs = plan.arguments(message_of(fields))
    return handler(*args, **kwargs)
