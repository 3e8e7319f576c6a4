"""What a handler receives, decided once from its signature."""

from __future__ import annotations

import builtins
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import msgspec

from lightbus.encoding.custom_types import describe_error
from lightbus.encoding.hints import make_optional
from lightbus.encoding.json_codec import CastMode, FieldsDecoder
from lightbus.exceptions import (
    InvalidEventListener,
    UndecodableEvent,
    UnfitEvent,
)
from lightbus.handling.calling import is_generator, name_of, without_partials
from lightbus.message import EventMessage
from lightbus.names import did_you_mean

Handler = Callable[..., Any]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_OF_FIELDS = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)

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
        required: Fields that it cannot be called without.
        takes_any: Whether it takes further fields (``**kwargs``).
        decoder: Decodes the fields, as the handler's hints say.
    """

    handler_name: str
    event: str
    takes_message: bool
    message_name: str | None
    positional: tuple[str, ...]
    required: tuple[str, ...]
    takes_any: bool
    decoder: FieldsDecoder

    def arguments(self, message: EventMessage) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the named arguments for an event.

        Raises:
            UndecodableEvent: The event's body is not a JSON object.
            UnfitEvent: A field is not what the handler's hint for it says.
            InvalidEventListener: The handler requires a field that the event does not carry.
        """
        try:
            fields = self.decoder.decode(message.body)
        except UndecodableEvent:
            raise
        except msgspec.ValidationError as error:
            # Its own text may quote the value, and a traceback is kept with the dead letter.
            raise UnfitEvent(
                self.handler_name, self.event, describe_error(error)
            ) from error.__cause__
        except Exception as error:  # a user's class may raise any
            raise UnfitEvent(self.handler_name, self.event, describe_error(error)) from error
        if missing := [name for name in self.required if name not in fields]:
            raise _lacking(self.handler_name, self.event, missing, message.kwargs)
        args: list[Any] = [message] if self.takes_message else []
        for name in self.positional:
            if name not in fields:
                break
            args.append(fields.pop(name))
        if not self.takes_any:
            for name in self.positional:
                fields.pop(name, None)
        elif self.message_name is not None:
            fields.pop(self.message_name, None)
        return args, fields


def plan_call(
    handler: Handler,
    event: str,
    known_fields: Collection[str] | None,
    *,
    cast_mode: CastMode = "strict",
) -> CallPlan:
    """Return how `handler` is called for the event of canonical name `event`.

    The `EventMessage` goes to the first positional parameter if that is called ``event`` or
    ``event_message``, is annotated `EventMessage`, or has no default and a name that is not nearly
    that of one of the event's fields. All others receive the event's fields by name, as the types
    that they are annotated with; fields that no parameter names are dropped.

    Args:
        handler: A function, method, partial or other callable.
        event: For messages.
        known_fields: The event's fields; None where its API is not registered here, or where it
            admits any.
        cast_mode: How it gets values, as `ApiConfig.cast_values` says.

    Raises:
        InvalidEventListener: `handler` is not callable, is a generator, or requires a field that
            the event is known not to have.
    """
    name = name_of(handler)
    parameters = _parameters(handler)
    first = next((p for p in parameters if p.kind in _POSITIONAL), None)
    takes_message = first is not None and _wants_message(handler, first, known_fields)
    fields = [p for p in parameters if not (takes_message and p is first)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in fields)
    plan = CallPlan(
        handler_name=name,
        event=event,
        takes_message=takes_message,
        message_name=first.name
        if first is not None and takes_message and first.kind is not first.POSITIONAL_ONLY
        else None,
        positional=tuple(p.name for p in fields if p.kind is p.POSITIONAL_ONLY),
        required=tuple(p.name for p in fields if p.default is p.empty and p.kind in _OF_FIELDS),
        takes_any=takes_any,
        decoder=FieldsDecoder(
            {
                p.name: _type_of(handler, p) if cast_mode != "off" else Any
                for p in fields
                if p.kind in _OF_FIELDS
            },
            keeps_others=takes_any,
            is_lax=cast_mode == "lax",
        ),
    )
    if known_fields is not None and (
        missing := [field for field in plan.required if field not in known_fields]
    ):
        raise _lacking(name, event, missing, known_fields)
    return plan


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of `function`; names in its hints that cannot be resolved stay names.

    Raises:
        TypeError: It cannot be called.
        ValueError: It has none.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415 - Python 3.14 has it (PEP 749)

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _parameters(handler: Handler) -> list[inspect.Parameter]:
    if not callable(handler):
        raise InvalidEventListener(f"{handler!r} cannot listen for events: it is not callable.")
    if is_generator(handler):
        raise InvalidEventListener(
            f"{name_of(handler)}() cannot listen for events: it is a generator, and nothing would "
            f"run its code. Remove the yield, or call it from a plain or an async function."
        )
    try:
        return list(signature_of(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidEventListener(
            f"{name_of(handler)} cannot listen for events: its signature is not known ({error})."
        ) from error


def _wants_message(
    handler: Handler, first: inspect.Parameter, known_fields: Collection[str] | None
) -> bool:
    if first.name in _MESSAGE_NAMES or _hint(handler, first) is EventMessage:
        return True
    return (
        known_fields is not None
        and first.name not in known_fields
        and first.default is first.empty
        and not did_you_mean(first.name, known_fields)
    )


def _type_of(handler: Handler, parameter: inspect.Parameter) -> Any:
    hint = _hint(handler, parameter)
    return make_optional(hint) if parameter.default is None and not isinstance(hint, str) else hint


def _hint(handler: Handler, parameter: inspect.Parameter) -> Any:
    """Return the type that a parameter is annotated with: Any where it is not, and the text of a
    hint that cannot be resolved.
    """
    if parameter.annotation is parameter.empty:
        return Any
    # By itself, for another annotation may name something that cannot be imported.
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        names = _names_for_hints(handler)
        return typing.get_type_hints(alone, names, include_extras=True)[parameter.name]
    except Exception:
        annotation = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
        is_message = str(annotation).split(".")[-1] == EventMessage.__name__
        return EventMessage if is_message else str(annotation)


def _names_for_hints(handler: Handler) -> dict[str, Any]:
    """Return the names that the hints of `handler` may use: those of the module that has them."""
    function = _undecorated(handler)
    if isinstance(function, type):
        return _names_for_hints_of_class(function)
    if not hasattr(function, "__globals__"):
        function = _undecorated(type(function).__call__)
    return dict(getattr(function, "__globals__", {}))


def _undecorated(handler: Handler) -> Handler:
    while hasattr(handler := without_partials(handler), "__wrapped__"):
        handler = handler.__wrapped__
    return handler


def _names_for_hints_of_class(class_: type[Any]) -> dict[str, Any]:
    # A library may make `__init__` from the fields of a class and of its bases in other modules.
    names: dict[str, Any] = {}
    for base in reversed(class_.__mro__):
        names.update(vars(sys.modules.get(base.__module__, builtins)))
    return names


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
