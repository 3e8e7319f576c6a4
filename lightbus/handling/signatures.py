"""Plans the call of a handler once, from its signature."""

from __future__ import annotations

import builtins
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
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
_FIELD_KINDS = (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)

# The most fields of an event that an error lists, and the most characters of each name
_MAX_LISTED = 20
_MAX_LISTED_LENGTH = 100

_MESSAGE_NAMES = ("event", "event_message")


@attrs.frozen
class CallPlan:
    """How one handler is called for one event.

    Attributes:
        handler_name: The name of the handler, for messages.
        event: The canonical name of the event.
        accepts_message: Whether the first argument is the `EventMessage`.
        message_name: The name of the parameter for the message, which cannot receive a field; None
            if there is no such parameter, or if it is positional-only.
        positional: The fields that the handler accepts only as positional arguments, in order.
        required: The fields that the handler requires.
        accepts_any: Whether the handler accepts other fields (``**kwargs``).
        decoder: Decodes the fields into the types of the handler's hints.
    """

    handler_name: str
    event: str
    accepts_message: bool
    message_name: str | None
    positional: tuple[str, ...]
    required: tuple[str, ...]
    accepts_any: bool
    decoder: FieldsDecoder

    def arguments(self, message: EventMessage) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments for an event.

        Raises:
            UndecodableEvent: The body of the event is not a JSON object.
            UnfitEvent: A field does not fit the handler's hint.
            InvalidEventListener: The handler requires a field that the event does not have.
        """
        try:
            fields = self.decoder.decode(message.body)
        except UndecodableEvent:
            raise
        except msgspec.ValidationError as error:
            # The original message may quote the value, and the dead letter stores the traceback.
            raise UnfitEvent(
                self.handler_name, self.event, describe_error(error)
            ) from error.__cause__
        except Exception as error:  # a user's class may raise any exception
            raise UnfitEvent(self.handler_name, self.event, describe_error(error)) from error
        if missing := [name for name in self.required if name not in fields]:
            raise _missing_fields_error(self.handler_name, self.event, missing, message.kwargs)
        args: list[Any] = [message] if self.accepts_message else []
        for name in self.positional:
            if name not in fields:
                break
            args.append(fields.pop(name))
        if not self.accepts_any:
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
    """Return how `handler` is called for an event.

    The first positional parameter receives the `EventMessage` if it is called ``event`` or
    ``event_message``, is annotated `EventMessage`, or has no default and a name that is not similar
    to a field of the event. All other parameters receive the field of the same name, converted to
    the annotated type. Fields without a parameter are dropped.

    Args:
        handler: A function, method, partial or other callable.
        event: The canonical name of the event, for messages.
        known_fields: The fields of the event; None if its API is not registered here, or if the
            event accepts any field.
        cast_mode: How values are converted; see `ApiConfig.cast_values`.

    Raises:
        InvalidEventListener: `handler` is not callable, is a generator, or requires a field that
            is not in `known_fields`.
    """
    name = name_of(handler)
    parameters = _parameters(handler)
    first = next((p for p in parameters if p.kind in _POSITIONAL), None)
    accepts_message = first is not None and _accepts_message(handler, first, known_fields)
    fields = [p for p in parameters if not (accepts_message and p is first)]
    accepts_any = any(p.kind is p.VAR_KEYWORD for p in fields)
    plan = CallPlan(
        handler_name=name,
        event=event,
        accepts_message=accepts_message,
        message_name=first.name
        if first is not None and accepts_message and first.kind is not first.POSITIONAL_ONLY
        else None,
        positional=tuple(p.name for p in fields if p.kind is p.POSITIONAL_ONLY),
        required=tuple(p.name for p in fields if p.default is p.empty and p.kind in _FIELD_KINDS),
        accepts_any=accepts_any,
        decoder=_field_decoder(handler, fields, cast_mode, accepts_any=accepts_any),
    )
    if known_fields is not None and (
        missing := [field for field in plan.required if field not in known_fields]
    ):
        raise _missing_fields_error(name, event, missing, known_fields)
    return plan


def _field_decoder(
    handler: Handler,
    parameters: Iterable[inspect.Parameter],
    cast_mode: CastMode,
    *,
    accepts_any: bool,
) -> FieldsDecoder:
    types = {
        p.name: _type_of(handler, p) if cast_mode != "off" else Any
        for p in parameters
        if p.kind in _FIELD_KINDS
    }
    return FieldsDecoder(types, keeps_others=accepts_any, is_lax=cast_mode == "lax")


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of `function`. Names in hints that cannot be resolved stay unresolved.

    Raises:
        TypeError: `function` is not callable.
        ValueError: `function` has no signature.
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
            "run its code. Remove the yield, or iterate over it in another function."
        )
    try:
        return list(signature_of(handler).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidEventListener(
            f"{name_of(handler)} cannot listen for events: its signature cannot be read ({error})."
        ) from error


def _accepts_message(
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
    """Return the type hint of a parameter.

    Returns Any if there is no annotation, and the text of a hint that cannot be resolved.
    """
    if parameter.annotation is parameter.empty:
        return Any
    # Resolved alone, because other annotations may refer to names that cannot be resolved.
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        names = _names_for_hints(handler)
        return typing.get_type_hints(alone, names, include_extras=True)[parameter.name]
    except Exception:
        annotation = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
        is_message = str(annotation).split(".")[-1] == EventMessage.__name__
        return EventMessage if is_message else str(annotation)


def _names_for_hints(handler: Handler) -> dict[str, Any]:
    """Return the global names to which the hints of `handler` may refer."""
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
    # `__init__` may be generated from fields of base classes, which may be in other modules.
    names: dict[str, Any] = {}
    for base in reversed(class_.__mro__):
        names.update(vars(sys.modules.get(base.__module__, builtins)))
    return names


def _missing_fields_error(
    handler_name: str,
    event: str,
    missing: Collection[str],
    fields: Collection[str] | Mapping[str, Any],
) -> InvalidEventListener:
    names = ", ".join(repr(name) for name in missing)
    # Limited, because the sender chooses the fields: there may be a million, of any length.
    first_fields = itertools.islice(fields, _MAX_LISTED)
    names_shown = [repr(name[:_MAX_LISTED_LENGTH]) for name in first_fields]
    more = [f"{len(fields) - _MAX_LISTED:,} more"] if len(fields) > _MAX_LISTED else []
    has = ", ".join(names_shown + more) or "no fields"
    return InvalidEventListener(
        f"{handler_name}() requires {names}, which event {event} does not have; it has {has}."
    )
