"""`CustomType`: represents a type hint that the JSON decoder does not support by itself."""

from __future__ import annotations

import enum
import re
from collections import UserString
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, get_args, get_origin
from uuid import UUID

import msgspec

from lightbus.encoding.hints import map_hint, name_of_hint
from lightbus.encoding.scalars import TEXT_TYPES
from lightbus.encoding.writing import to_bus

Reader = Callable[[Any], Any]

# The decoder's errors about an enum or the tag of a union quote the value after these words.
_QUOTED_VALUE = re.compile(r"(?s)Invalid (enum )?value .*?(?= - at `\$)|Invalid (enum )?value .*")

# The path within a value, followed by the path of that value
_NESTED_PATHS = re.compile(r" - at `\$([^`]*)` - at `(\$[^`]*)`")


class CustomType(type):
    """A class that represents a hint. The decoder calls `decode_custom` for it.

    Attributes:
        hint: The hint.
        read: Converts a JSON value into an object.
        json_type: A type of the decoder that accepts the same JSON values, used to distinguish the
            members of a union; None if any JSON value is accepted.
        json_classes: The classes of the accepted JSON values.
        tag: The name and value of the field that identifies such an object; None if there is none.
        make_schema_type: Returns the type whose JSON Schema describes the encoded value.
        options: For a union that the decoder does not support: the types whose JSON Schemas
            describe the encoded values.
    """

    hint: Any
    read: Reader
    json_type: Any
    json_classes: tuple[type[Any], ...]
    tag: tuple[str, Any] | None
    make_schema_type: Callable[[], Any]
    options: tuple[Any, ...]

    def accepts(cls, value: Any) -> bool:
        """Return whether a JSON value belongs to this member of a union."""
        # Compares exact classes, because a boolean is also an integer.
        if type(value) not in cls.json_classes:
            return False
        return cls.tag is None or not isinstance(value, dict) or value.get(cls.tag[0]) == cls.tag[1]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def custom_type(
    hint: Any,
    read: Reader,
    *,
    json_type: Any,
    json_classes: tuple[type[Any], ...] = (dict,),
    make_schema_type: Callable[[], Any] | None = None,
    options: tuple[Any, ...] = (),
) -> CustomType:
    """Return a type that reads values of `hint` with `read`; see `CustomType`."""
    namespace = {"__module__": getattr(hint, "__module__", __name__)}
    type_ = CustomType(name_of_hint(hint), (), namespace)
    type_.hint = hint
    type_.read = staticmethod(read)
    type_.json_classes = json_classes
    type_.tag = None
    type_.json_type = json_type
    type_.options = options
    type_.make_schema_type = staticmethod(make_schema_type or (lambda: type_))
    return type_


def decode_custom(type_: Any, value: Any) -> Any:
    """Convert a JSON value for a `CustomType`. The decoder calls it.

    Raises:
        NotImplementedError: `type_` is not a `CustomType`.
        Exception: `value` does not fit the type.
    """
    if not isinstance(type_, CustomType):
        raise NotImplementedError
    try:
        return type_.read(value)
    except ValueError as error:
        raise ValueError(describe_error(error)) from None


def schema_type_of(type_: Any) -> Any:
    """Return the type whose JSON Schema describes the encoded values of `type_`.

    `type_` is a result of `TypeBuilder.build`.
    """
    return map_hint(
        type_, lambda part: part.make_schema_type() if isinstance(part, CustomType) else part
    )


def describe_error(error: Exception) -> str:
    """Return the message of `error` without the rejected value, which may be a secret."""
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # an error of pydantic
        errors = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in errors)
    message = _QUOTED_VALUE.sub(
        lambda match: f"Invalid {match[1] or match[2] or ''}value", str(error)
    )
    while (joined := _NESTED_PATHS.sub(r" - at `\2\1`", message)) != message:
        message = joined
    return message


def enum_reader(class_: type[enum.Enum]) -> Reader:
    """Return a function that finds the member of an enum by its JSON value."""
    members = {msgspec.json.encode(to_bus(member)): member for member in class_}

    def read(value: Any) -> enum.Enum:
        member = members.get(msgspec.json.encode(value))
        if member is None:
            raise ValueError(f"No member of {class_.__name__} has this value")
        return member

    return read


def read_text(value: Any) -> str:
    """Return a JSON string or number as text."""
    if isinstance(value, str):
        return value
    if type(value) in (int, float):
        return str(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def json_classes_of(type_: Any) -> tuple[type[Any], ...]:
    """Return the classes of the JSON values that the decoder accepts for `type_`."""
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return json_classes_of(args[0])
    return _JSON_CLASSES.get(origin or type_, (str,))


def accepts_container(class_: Any, empty: Any) -> bool:
    """Return whether a container class can be created from `empty`, a list or a dictionary."""
    try:
        return len(class_(empty)) == 0
    except Exception:  # a user's class may raise any exception
        return False


def _read_from_text(class_: Any, value: str) -> Any:
    try:
        return class_(value)
    except ValueError:
        # The original message quotes the value.
        raise ValueError(f"Invalid {class_.__name__}") from None


def _read_time(class_: Any, value: time) -> Any:
    parts = value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    return class_(*parts, fold=value.fold)


# For subclasses of each class: the type that the decoder reads, and the conversion of its value
SUBCLASS_READERS: dict[type[Any], tuple[Any, Callable[[Any, Any], Any]]] = {
    **{base: (base, lambda class_, value: class_(value)) for base in (str, int, float, bytes)},
    Decimal: (Decimal, lambda class_, value: class_(value)),
    UUID: (UUID, lambda class_, value: class_(str(value))),
    datetime: (datetime, lambda class_, value: class_.combine(value.date(), value.timetz())),
    date: (date, lambda class_, value: class_.fromordinal(value.toordinal())),
    time: (time, _read_time),
    timedelta: (
        timedelta,
        lambda class_, value: class_(value.days, value.seconds, value.microseconds),
    ),
    UserString: (str, lambda class_, value: class_(value)),
    **dict.fromkeys(TEXT_TYPES, (str, _read_from_text)),
}

_JSON_CLASSES: dict[Any, tuple[type[Any], ...]] = {
    int: (int,),
    float: (int, float),
    Decimal: (str, int, float),
    list: (list,),
    dict: (dict,),
}
