"""`OwnType`: stands for a type hint that the JSON decoder leaves to the bus."""

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

from lightbus.encoding.hints import mapped, name_of_hint
from lightbus.encoding.writing import TEXT_TYPES, to_bus

Reader = Callable[[Any], Any]

# The decoder puts the value after these words, about an enum or the tag of a union.
_VALUE = re.compile(r"(?s)Invalid (enum )?value .*?(?= - at `\$)|Invalid (enum )?value .*")

# A place in a value, and then the place of that value in another one
_NESTED_PLACES = re.compile(r" - at `\$([^`]*)` - at `(\$[^`]*)`")


class OwnType(type):
    """A class that stands for a hint. The decoder calls `decode_unknown` for it.

    Attributes:
        hint: The hint that it stands for.
        read: Returns the object for a JSON value.
        alike: A type of the decoder that accepts the same kind of JSON value, to distinguish the
            types of a union; None if any kind is accepted.
        kinds: The types of such JSON values.
        tag: The field that identifies such an object, and its value; None if there is none.
        describe: Returns the type whose JSON Schema describes the travelling value.
        options: For a union that the decoder does not accept: types whose JSON Schemas describe the
            travelling values.
    """

    hint: Any
    read: Reader
    alike: Any
    kinds: tuple[type[Any], ...]
    tag: tuple[str, Any] | None
    describe: Callable[[], Any]
    options: tuple[Any, ...]

    def takes(cls, value: Any) -> bool:
        """Return whether a JSON value is of the kind that `read` takes."""
        # By its exact type, because a boolean is also an integer.
        if type(value) not in cls.kinds:
            return False
        return cls.tag is None or not isinstance(value, dict) or value.get(cls.tag[0]) == cls.tag[1]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def own_type(
    hint: Any,
    read: Reader,
    *,
    alike: Any,
    kinds: tuple[type[Any], ...] = (dict,),
    describe: Callable[[], Any] | None = None,
    options: tuple[Any, ...] = (),
) -> OwnType:
    """Return a type that reads values of `hint` with `read`; see `OwnType`."""
    form = OwnType(name_of_hint(hint), (), {"__module__": getattr(hint, "__module__", __name__)})
    form.hint = hint
    form.read = staticmethod(read)
    form.kinds = kinds
    form.tag = None
    form.alike = alike
    form.options = options
    form.describe = staticmethod(describe or (lambda: form))
    return form


def decode_unknown(type_: Any, value: Any) -> Any:
    """Return the object for a JSON value, of a type that the decoder does not know.

    Raises:
        NotImplementedError: It is no type that `ReadTypes.of` returned.
        Exception: `value` does not fit.
    """
    if not isinstance(type_, OwnType):
        raise NotImplementedError
    try:
        return type_.read(value)
    except ValueError as error:
        raise ValueError(describe_error(error)) from None


def described(type_: Any) -> Any:
    """Return the type whose JSON Schema is that of what a type of `ReadTypes` reads."""
    return mapped(type_, lambda one: one.describe() if isinstance(one, OwnType) else one)


def describe_error(error: Exception) -> str:
    """Return the message of `error` without the value, if that is known, because it may be a
    secret.
    """
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # of pydantic
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
    said = _VALUE.sub(lambda found: f"Invalid {found[1] or found[2] or ''}value", str(error))
    while (joined := _NESTED_PLACES.sub(r" - at `\2\1`", said)) != said:
        said = joined
    return said


def enum_reader(class_: type[enum.Enum]) -> Reader:
    """Return a function that finds the member of an enum by its value."""
    members = {msgspec.json.encode(to_bus(member)): member for member in class_}

    def read(value: Any) -> enum.Enum:
        member = members.get(msgspec.json.encode(value))
        if member is None:
            raise ValueError(f"No member of {class_.__name__} has this value")
        return member

    return read


def text_of(value: Any) -> str:
    """Return a text or a number as text."""
    if isinstance(value, str):
        return value
    if type(value) in (int, float):
        return str(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def kinds_of(type_: Any) -> tuple[type[Any], ...]:
    """Return what the JSON values of a type of the decoder's are instances of."""
    origin, args = get_origin(type_), get_args(type_)
    if origin is Annotated:
        return kinds_of(args[0])
    return _KINDS.get(origin or type_, (str,))


def is_made_of(class_: Any, empty: Any) -> bool:
    """Return whether a class of containers is made of a list or a dictionary, as of `empty`."""
    try:
        return len(class_(empty)) == 0
    except Exception:  # a user's class may raise any
        return False


def _text_reader(class_: Any, value: str) -> Any:
    try:
        return class_(value)
    except ValueError:
        # Their own text quotes the value.
        raise ValueError(f"Invalid {class_.__name__}") from None


def _time_of(class_: Any, value: time) -> Any:
    parts = value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    return class_(*parts, fold=value.fold)


# What values of a subclass are read as, and what makes the subclass of that
MADE_OF: dict[type[Any], tuple[Any, Callable[[Any, Any], Any]]] = {
    **{base: (base, lambda class_, value: class_(value)) for base in (str, int, float, bytes)},
    Decimal: (Decimal, lambda class_, value: class_(value)),
    UUID: (UUID, lambda class_, value: class_(str(value))),
    datetime: (datetime, lambda class_, value: class_.combine(value.date(), value.timetz())),
    date: (date, lambda class_, value: class_.fromordinal(value.toordinal())),
    time: (time, _time_of),
    timedelta: (
        timedelta,
        lambda class_, value: class_(value.days, value.seconds, value.microseconds),
    ),
    UserString: (str, lambda class_, value: class_(value)),
    **dict.fromkeys(TEXT_TYPES, (str, _text_reader)),
}

_KINDS: dict[Any, tuple[type[Any], ...]] = {
    int: (int,),
    float: (int, float),
    Decimal: (str, int, float),
    list: (list,),
    dict: (dict,),
}
