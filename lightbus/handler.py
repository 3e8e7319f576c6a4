"""What a handler receives, decided once from its signature."""

from __future__ import annotations

import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs

from lightbus.exceptions import InvalidEventListener
from lightbus.message import EventMessage

Handler = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# How many of an event's fields, and how many letters of each, an error names
_MOST_SHOWN = 20
_LONGEST_SHOWN = 100

_MESSAGE_NAMES = ("event", "event_message")


@attrs.frozen
class CallPlan:
    """How one handler is called for one event.

    Attributes:
        handler_name: For messages to people.
        event: The event's canonical name.
        takes_message: Whether the `EventMessage` is its first argument.
        message_name: The name under which it takes it, and so no field; None where there is none.
        positional: Fields that the handler takes by position only, in order.
        named: Fields that it takes by name.
        required: Fields that it can not be called without.
        takes_any: Whether it takes further fields (``**kwargs``).
    """

    handler_name: str
    event: str
    takes_message: bool
    message_name: str | None
    positional: tuple[str, ...]
    named: frozenset[str]
    required: tuple[str, ...]
    takes_any: bool

    def arguments(
        self, message: EventMessage, fields: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments for an event that carries `fields`.

        Raises:
            InvalidEventListener: The handler requires a field that the event does not carry.
        """
        if missing := [name for name in self.required if name not in fields]:
            raise _lacking(self.handler_name, self.event, missing, fields)
        args: list[Any] = [message] if self.takes_message else []
        for name in self.positional:
            if name not in fields:
                break
            args.append(fields.pop(name))
        if self.takes_any:
            return args, {name: v for name, v in fields.items() if name != self.message_name}
        return args, {name: value for name, value in fields.items() if name in self.named}


def plan_call(handler: Handler, event: str, known_fields: Collection[str] | None) -> CallPlan:
    """Return how `handler` is called for the event of canonical name `event`.

    The `EventMessage` goes to the first positional parameter if that is called ``event`` or
    ``event_message``, is annotated `EventMessage`, or has no default and is not one of the
    event's fields. All others receive the event's fields by name; fields that no parameter names
    are dropped.

    Args:
        handler: A function, method, partial or other callable.
        event: For messages.
        known_fields: The event's fields; None where its API is not registered here, or where it
            admits any.

    Raises:
        InvalidEventListener: `handler` is not callable, or requires a field that the event is known
            not to have.
    """
    name = name_of(handler)
    parameters = _parameters(handler)
    first = next((p for p in parameters if p.kind in _POSITIONAL), None)
    takes_message = first is not None and _wants_message(handler, first, known_fields)
    fields = [p for p in parameters if not (takes_message and p is first)]
    plan = CallPlan(
        handler_name=name,
        event=event,
        takes_message=takes_message,
        message_name=first.name
        if first is not None and takes_message and first.kind is not first.POSITIONAL_ONLY
        else None,
        positional=tuple(p.name for p in fields if p.kind is p.POSITIONAL_ONLY),
        named=frozenset(
            p.name for p in fields if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        ),
        required=tuple(
            p.name
            for p in fields
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ),
        takes_any=any(p.kind is p.VAR_KEYWORD for p in fields),
    )
    if known_fields is not None and (
        missing := [field for field in plan.required if field not in known_fields]
    ):
        raise _lacking(name, event, missing, known_fields)
    return plan


def name_of(handler: Handler) -> str:
    """Return the name of `handler` for people, for example ``"handle_created"``."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return str(getattr(handler, "__name__", type(handler).__name__))


def is_async(handler: Handler) -> bool:
    """Return whether calling `handler` makes a coroutine, as far as can be told before."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    call = type(handler).__call__
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    if not callable(handler):
        raise InvalidEventListener(f"{handler!r} can not listen for events: it is not callable.")
    try:
        return list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidEventListener(
            f"{name_of(handler)} can not listen for events: its signature is not known ({error})."
        ) from error


def _wants_message(
    handler: Handler, first: inspect.Parameter, known_fields: Collection[str] | None
) -> bool:
    if first.name in _MESSAGE_NAMES or _hint(handler, first) is EventMessage:
        return True
    return (
        known_fields is not None and first.name not in known_fields and first.default is first.empty
    )


def _hint(handler: Handler, parameter: inspect.Parameter) -> Any:
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    function = handler if hasattr(handler, "__annotations__") else type(handler).__call__
    try:
        return typing.get_type_hints(function).get(parameter.name)
    except Exception:  # another annotation of the handler names something that is not importable
        return EventMessage if parameter.annotation.split(".")[-1] == "EventMessage" else None


def _lacking(
    handler_name: str,
    event: str,
    missing: Collection[str],
    fields: Collection[str] | Mapping[str, Any],
) -> InvalidEventListener:
    names = ", ".join(repr(name) for name in missing)
    # The sender chose them: there may be a million, of any length.
    shown = [repr(name[:_LONGEST_SHOWN]) for name in itertools.islice(fields, _MOST_SHOWN)]
    more = [f"{len(fields) - _MOST_SHOWN:,} more"] if len(fields) > _MOST_SHOWN else []
    has = ", ".join(shown + more) or "no fields"
    return InvalidEventListener(
        f"{handler_name}() requires {names}, which event {event} does not have; it has {has}."
    )
