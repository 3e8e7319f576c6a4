"""Which types the JSON decoder supports by itself."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict, get_args, get_origin

import msgspec

from lightbus.encoding import pydantic_types
from lightbus.encoding.class_fields import fields_of_class, is_named_tuple
from lightbus.encoding.custom_types import SUBCLASS_READERS
from lightbus.encoding.hints import (
    class_of,
    is_implicitly_optional,
    key_of_hint,
    resolve_alias,
)


def parameters_type(types: Mapping[str, Any]) -> Any:
    """Return the type of an object that has values of `types`. Each of them is optional."""
    return TypedDict("Parameters", dict(types), total=False)  # type: ignore[operator]


def is_decodable(type_: Any) -> bool:
    """Return whether the decoder accepts a type."""
    try:
        # Checked in a `TypedDict`, in which some hints, such as `Final`, are not valid.
        _ = msgspec.json.Decoder(parameters_type({"value": type_}))
    except Exception:  # `type_` is not a valid type
        return False
    return True


def is_native(hint: Any, *, is_lax: bool) -> bool:
    """Return whether the decoder supports `hint`, and every hint within it, without a reader.

    Args:
        hint: A type hint.
        is_lax: Whether numbers are accepted for text.
    """
    hints = _hints_within(hint, set())
    return is_decodable(hint) and not any(_needs_reader(one, is_lax=is_lax) for one in hints)


def is_unknown(class_: type[Any]) -> bool:
    """Return whether the decoder does not support a class."""
    base = next((base for base in class_.__mro__ if base in SUBCLASS_READERS), class_)
    if base is not class_ and class_ is not bool and not issubclass(class_, enum.Enum):
        # `type_info` would report a replacement of `datetime` as supported, which libraries that
        # freeze the time put into the module.
        return True
    return isinstance(msgspec.inspect.type_info(class_), msgspec.inspect.CustomType)


def _needs_reader(hint: Any, *, is_lax: bool) -> bool:
    class_ = class_of(hint)
    if class_ is None or class_ is msgspec.UnsetType:
        return False
    return (
        hasattr(class_, "__from_bus__")
        or pydantic_types.is_pydantic(class_)
        or is_named_tuple(class_)
        or (is_lax and class_ is str)
        or any(is_implicitly_optional(f.hint, f.default) for f in fields_of_class(hint) or ())
        or is_unknown(class_)
    )


def _hints_within(hint: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield `hint`, the hints within it, and those of the fields of classes in it."""
    key = key_of_hint(hint)
    if key in seen:
        return
    seen.add(key)
    yield hint
    if (target := resolve_alias(hint)) is not hint:
        yield from _hints_within(target, seen)
    args = get_args(hint)
    # JSON keys are text, so a key of type `str` needs no reader.
    for arg in args[1:] if get_origin(hint) is dict and args[0] is str else args:
        yield from _hints_within(arg, seen)
    if not pydantic_types.is_pydantic(hint):
        for field in fields_of_class(hint) or ():
            yield from _hints_within(field.hint, seen)
