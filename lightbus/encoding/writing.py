"""Converts values for the JSON encoder. Each type has one writer, which is chosen once."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import math
import types
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    ValuesView,
)
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec

from lightbus.encoding import pydantic_types
from lightbus.encoding.scalars import SCALAR_WRITERS, UNWRAP_PROXY, Writer

# The encoder writes these unchanged, without loss.
_PLAIN = frozenset({str, int, float, bool, types.NoneType, bytes, date, timedelta, Decimal, UUID})


def are_plain(values: Iterable[object]) -> bool:
    """Return whether the encoder writes `values` unchanged."""
    return _PLAIN.issuperset(map(type, values))


def to_bus(value: Any) -> Any:
    """Convert `value` into built-in types and msgspec Structs, which the encoder supports.

    Raises:
        ValueError: The JSON form would lose data.
        Exception: A user's class raised it.
    """
    type_: Any = type(value)
    if type_ in _PLAIN:
        return value
    # A proxy returns the class of the object behind it.
    return _writer_of(type_)(value) if value.__class__ is type_ else _write_proxy(value)


def encode_unknown(value: Any) -> Any:
    """Convert an object that the encoder does not support.

    The encoder calls this for values that `to_bus` did not reach, such as the keys of a dictionary
    in a Struct.

    Raises:
        TypeError: `value` has no JSON form.
    """
    result = to_bus(value)
    if result is value:
        class_ = type(value)
        raise TypeError(f"{class_.__module__}.{class_.__qualname__} has no JSON form")
    return result


def child_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items or fields of `value`, each with its path relative to `value`."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", item) for key, item in _items_of(value))
    elif names := _field_names(value.__class__):
        yield from ((f".{name}", getattr(value, name, None)) for name in names)
    elif is_collection(value.__class__) and not isinstance(value, str | bytes | bytearray):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))


@functools.lru_cache(maxsize=1000)
def _writer_of(type_: Any) -> Writer:
    for matches, writer in _SPECIAL_WRITERS:
        if matches(type_):
            return writer
    by_base = (_BASE_WRITERS[base] for base in _BASE_WRITERS if issubclass(type_, base))
    writer = next(by_base, _write_unchanged)
    return _write_collection if writer is _write_unchanged and is_collection(type_) else writer


def is_collection(type_: type[Any]) -> bool:
    """Return whether iterating over an object of a class yields its whole content.

    A class that merely has the methods of a collection is not one: iterating over a table, for
    example, may yield the names of its columns.
    """
    return issubclass(type_, Sequence | AbstractSet | ValuesView) or Collection in type_.__mro__


def _write_unchanged(value: Any) -> Any:
    return value


def _write_with_hook(value: Any) -> Any:
    return to_bus(value.__to_bus__())


def _write_enum(value: enum.Enum) -> Any:
    return to_bus(value.value)


def _write_named_tuple(value: Any) -> dict[str, Any]:
    return {name: to_bus(item) for name, item in zip(value._fields, value, strict=True)}


def _write_fields(value: Any) -> dict[str, Any]:
    if isinstance(value, _CONTAINERS) and len(value) > 0:
        raise ValueError("it has items beside its fields, and only one of the two can travel")
    items = ((name, getattr(value, name, msgspec.UNSET)) for name in _field_names(value.__class__))
    return {name: to_bus(item) for name, item in items if item is not msgspec.UNSET}


def _write_struct(value: Any) -> Any:
    """Return a Struct with converted fields. The encoder itself supports Structs."""
    before = {name: getattr(value, name) for name in value.__struct_fields__}
    if are_plain(before.values()):
        return value
    after = {name: to_bus(item) for name, item in before.items()}
    changed = [name for name in before if after[name] is not before[name]]
    if not changed:
        return value
    # `copy` does not call `__init__`, which may change values, and supports frozen Structs.
    copied = copy.copy(value)
    for name in changed:
        msgspec.structs.force_setattr(copied, name, after[name])
    return copied


def _write_mapping(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if type(value) is dict and _TEXT_ONLY.issuperset(map(type, value)):
        if are_plain(value.values()):
            return value
        return {key: to_bus(item) for key, item in value.items()}
    items = _items_of(value)
    _require_complete(len(items), len(value))
    result = {_key(key): to_bus(item) for key, item in items}
    if len(result) < len(items):
        raise ValueError("two of its keys become the same key in JSON")
    return result


def _write_collection(value: Collection[Any]) -> Collection[Any]:
    if type(value) in _ARRAYS and are_plain(value):
        return value
    items = [to_bus(item) for item in value]
    _require_complete(len(items), len(value))
    return items


def _write_raw(value: msgspec.Raw) -> msgspec.Raw:
    """Return raw JSON unchanged if it is valid."""
    msgspec.json.decode(value)
    return value


def _write_proxy(value: Any) -> Any:
    """Convert an object whose ``__class__`` is not its type, such as a proxy."""
    class_ = value.__class__
    for base, unwrap in UNWRAP_PROXY.items():
        if issubclass(class_, base):
            return to_bus(unwrap(value))
    return _writer_of(class_)(value)


def _items_of(value: Mapping[Any, Any]) -> Collection[tuple[Any, Any]]:
    """Return the items of a mapping, also of a `dict` that overrides some of its methods."""
    type_ = type(value)
    if not issubclass(type_, dict) or type_.items is not dict.items:
        return list(value.items())
    keys = value if type_.keys is dict.keys else value.keys()
    return [(key, value[key]) for key in keys]


def _key(key: Any) -> str:
    result = to_bus(key)
    if isinstance(result, float) and not math.isfinite(result):
        raise ValueError("JSON has no NaN and no infinity")
    if isinstance(result, bool | types.NoneType):
        raise TypeError(f"a key cannot be {result}")
    with_text_key: dict[str, None] = msgspec.to_builtins({result: None}, str_keys=True)
    return next(iter(with_text_key))


def _require_complete(count: int, length: int) -> None:
    if count < length:
        raise ValueError(f"iterating over it gives {count} items, and its length is {length}")


@functools.lru_cache(maxsize=1000)
def _field_names(type_: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(type_):
        return tuple(field.name for field in dataclasses.fields(type_))
    if attrs.has(type_):
        return tuple(field.name for field in attrs.fields(type_))
    return tuple(getattr(type_, "__struct_fields__", ()))


_TEXT_ONLY = frozenset({str})
_CONTAINERS = (dict, list, tuple, set, frozenset)
_ARRAYS = frozenset({list, tuple, set, frozenset})

# The first writer whose condition matches a class is used.
_SPECIAL_WRITERS: tuple[tuple[Callable[[Any], bool], Writer], ...] = (
    (lambda type_: hasattr(type_, "__to_bus__"), _write_with_hook),
    (lambda type_: issubclass(type_, enum.Enum), _write_enum),
    (pydantic_types.is_pydantic, pydantic_types.dump),
    (lambda type_: issubclass(type_, tuple) and hasattr(type_, "_fields"), _write_named_tuple),
    (lambda type_: issubclass(type_, msgspec.Struct), _write_struct),
    (lambda type_: bool(_field_names(type_)), _write_fields),
)

# Any other class is written as the first class here that it derives from. The table holds the
# classes themselves, because libraries that freeze the time replace names in modules.
_BASE_WRITERS: dict[type[Any], Writer] = {
    **SCALAR_WRITERS,
    msgspec.Raw: _write_raw,
    Mapping: _write_mapping,
}
