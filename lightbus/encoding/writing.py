"""Converts values for the JSON encoder: each type has one writer, which is chosen once."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import ipaddress
import math
import pathlib
import types
from collections import UserString
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
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any
from uuid import UUID

import attrs
import msgspec

from lightbus.encoding import pydantic_types

Writer = Callable[[Any], Any]

# The encoder writes these unchanged, without loss.
_PLAIN = frozenset({str, int, float, bool, types.NoneType, bytes, date, timedelta, Decimal, UUID})

# These travel as text, and are read from that text.
TEXT_TYPES = (
    *(complex, pathlib.PurePath),
    *(ipaddress.IPv4Address, ipaddress.IPv4Network, ipaddress.IPv4Interface),
    *(ipaddress.IPv6Address, ipaddress.IPv6Network, ipaddress.IPv6Interface),
)

_MINUTE = timedelta(minutes=1)


def are_plain(values: Iterable[object]) -> bool:
    """Return whether the encoder writes `values` unchanged."""
    return _PLAIN.issuperset(map(type, values))


def to_bus(value: Any) -> Any:
    """Return `value` for the encoder: built-in types, and Structs of msgspec.

    Raises:
        ValueError: It would lose data.
        Exception: A user's class raised it.
    """
    type_: Any = type(value)
    if type_ in _PLAIN:
        return value
    # A proxy claims the class of the object behind it.
    return _writer_of(type_)(value) if value.__class__ is type_ else _write_proxy(value)


def encode_unknown(value: Any) -> Any:
    """Return the travelling value of an object that the encoder does not know.

    The encoder calls it for values that `to_bus` did not convert, such as the keys of a dictionary
    in a Struct.

    Raises:
        TypeError: It has no JSON form.
    """
    written = to_bus(value)
    if written is value:
        class_ = type(value)
        raise TypeError(f"{class_.__module__}.{class_.__qualname__} has no JSON form")
    return written


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the items or the fields of a value, each with its place in it."""
    if isinstance(value, Mapping):
        yield from ((f".{key}", item) for key, item in _items_of(value))
    elif names := _field_names(value.__class__):
        yield from ((f".{name}", getattr(value, name, None)) for name in names)
    elif is_collection(value.__class__) and not isinstance(value, str | bytes | bytearray):
        yield from ((f"[{number}]", item) for number, item in enumerate(value))


@functools.lru_cache(maxsize=1000)
def _writer_of(type_: Any) -> Writer:
    for is_one, writer in _WRITERS_OF_KINDS:
        if is_one(type_):
            return writer
    found = next((_WRITERS[base] for base in _WRITERS if issubclass(type_, base)), _write_itself)
    return _write_collection if found is _write_itself and is_collection(type_) else found


def is_collection(type_: type[Any]) -> bool:
    """Return whether iterating over objects of a class gives their whole content.

    Having the methods of a collection is not enough: iterating over a table, for example, may give
    the names of its columns.
    """
    return issubclass(type_, Sequence | AbstractSet | ValuesView) or Collection in type_.__mro__


def _write_itself(value: Any) -> Any:
    return value


def _write_by_its_class(value: Any) -> Any:
    return to_bus(value.__to_bus__())


def _write_enum(value: enum.Enum) -> Any:
    return to_bus(value.value)


def _write_named_tuple(value: Any) -> dict[str, Any]:
    return {name: to_bus(item) for name, item in zip(value._fields, value, strict=True)}


def _write_fields(value: Any) -> dict[str, Any]:
    if isinstance(value, _CONTAINERS) and len(value) > 0:
        raise ValueError("it has items beside its fields, and only one of the two can travel")
    found = ((name, getattr(value, name, msgspec.UNSET)) for name in _field_names(value.__class__))
    return {name: to_bus(item) for name, item in found if item is not msgspec.UNSET}


def _write_struct(value: Any) -> Any:
    """Return a Struct as it is, or a copy with other fields: the encoder knows how it travels."""
    before = {name: getattr(value, name) for name in value.__struct_fields__}
    if are_plain(before.values()):
        return value
    after = {name: to_bus(item) for name, item in before.items()}
    changed = [name for name in before if after[name] is not before[name]]
    if not changed:
        return value
    # A copy is not made by `__init__`, which may change values, and works where one is frozen.
    copied = copy.copy(value)
    for name in changed:
        msgspec.structs.force_setattr(copied, name, after[name])
    return copied


def _write_mapping(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if type(value) is dict and _TEXT.issuperset(map(type, value)):
        if are_plain(value.values()):
            return value
        return {key: to_bus(item) for key, item in value.items()}
    items = _items_of(value)
    _refuse_fewer(len(items), len(value))
    written = {_key(key): to_bus(item) for key, item in items}
    if len(written) < len(items):
        raise ValueError("two of its keys become the same key in JSON")
    return written


def _write_collection(value: Collection[Any]) -> Collection[Any]:
    if type(value) in _ARRAYS and are_plain(value):
        return value
    items = [to_bus(item) for item in value]
    _refuse_fewer(len(items), len(value))
    return items


def _write_raw(value: msgspec.Raw) -> msgspec.Raw:
    """Return raw JSON unchanged, after a check that it is valid."""
    msgspec.json.decode(value)
    return value


def _write_datetime(value: Any) -> Any:
    base = _base_of(value)
    plain = value if type(value) is base else base.combine(base.date(value), base.timetz(value))
    _refuse_unequal(plain, value)
    offset = plain.utcoffset()
    # The encoder would cut off the seconds of the offset, which changes the moment.
    if offset is None or not offset % _MINUTE:
        return plain
    return (plain - offset).replace(tzinfo=UTC)


def _write_time(value: Any) -> Any:
    offset = value.utcoffset()
    if offset is not None and offset % _MINUTE:
        raise ValueError("the offset of a time has whole minutes")
    base = _base_of(value)
    if type(value) is base:
        return value
    parts = value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    return base(*parts, fold=value.fold)


def _write_date(value: Any) -> Any:
    base = _base_of(value)
    return base.fromordinal(base.toordinal(value))


def _write_timedelta(value: Any) -> Any:
    plain = _base_of(value)(value.days, value.seconds, value.microseconds)
    _refuse_unequal(plain, value)
    return plain


def _write_number(value: Any) -> int | float:
    plain = int(value) if isinstance(value, Integral) else float(value)
    _refuse_unequal(plain, value)
    return plain


def _write_proxy(value: Any) -> Any:
    """Return the travelling value of an object that claims another class."""
    class_ = value.__class__
    for base, unwrapped in _UNWRAPPED.items():
        if issubclass(class_, base):
            return to_bus(unwrapped(value))
    return _writer_of(class_)(value)


def _items_of(value: Mapping[Any, Any]) -> Collection[tuple[Any, Any]]:
    """Return the items of a subclass of `dict` that overrides its methods."""
    type_ = type(value)
    if not issubclass(type_, dict) or type_.items is not dict.items:
        return list(value.items())
    keys = value if type_.keys is dict.keys else value.keys()
    return [(key, value[key]) for key in keys]


def _key(key: Any) -> str:
    written = to_bus(key)
    if isinstance(written, float) and not math.isfinite(written):
        raise ValueError("JSON has no NaN and no infinity")
    if isinstance(written, bool | types.NoneType):
        raise TypeError(f"a key cannot be {written}")
    found: dict[str, None] = msgspec.to_builtins({written: None}, str_keys=True)
    return next(iter(found))


def _base_of(value: Any) -> Any:
    return next(base for base in type(value).__mro__ if base in _WRITERS)


def _refuse_fewer(found: int, length: int) -> None:
    if found < length:
        raise ValueError(f"iterating over it gives {found} items, and its length is {length}")


def _refuse_unequal(plain: Any, value: Any) -> None:
    if plain != value:
        raise ValueError(f"only a part of it fits a {type(plain).__name__}")


@functools.lru_cache(maxsize=1000)
def _field_names(type_: Any) -> tuple[str, ...]:
    if dataclasses.is_dataclass(type_):
        return tuple(field.name for field in dataclasses.fields(type_))
    if attrs.has(type_):
        return tuple(field.name for field in attrs.fields(type_))
    return tuple(getattr(type_, "__struct_fields__", ()))


_TEXT = frozenset({str})
_CONTAINERS = (dict, list, tuple, set, frozenset)
_ARRAYS = frozenset({list, tuple, set, frozenset})

# Each has one writer, the first that fits.
_WRITERS_OF_KINDS: tuple[tuple[Callable[[Any], bool], Writer], ...] = (
    (lambda type_: hasattr(type_, "__to_bus__"), _write_by_its_class),
    (lambda type_: issubclass(type_, enum.Enum), _write_enum),
    (pydantic_types.is_pydantic, pydantic_types.dump),
    (lambda type_: issubclass(type_, tuple) and hasattr(type_, "_fields"), _write_named_tuple),
    (lambda type_: issubclass(type_, msgspec.Struct), _write_struct),
    (lambda type_: bool(_field_names(type_)), _write_fields),
)

# A class of none of these kinds is written as the first class here that it derives from. The table
# holds the classes themselves, because libraries that freeze the time replace names of modules.
_WRITERS: dict[type[Any], Writer] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: bytes,
    memoryview: bytes,
    Decimal: Decimal,
    UUID: lambda value: UUID(int=value.int),
    datetime: _write_datetime,
    date: _write_date,
    time: _write_time,
    timedelta: _write_timedelta,
    **dict.fromkeys((UserString, *TEXT_TYPES), str),
    Real: _write_number,
    msgspec.Raw: _write_raw,
    Mapping: _write_mapping,
}

# What is behind a proxy, by the class that the proxy claims to have
_UNWRAPPED: dict[type[Any], Callable[[Any], Any]] = {
    types.NoneType: lambda _: None,
    bool: bool,
    str: str,
    int: int,
    float: float,
    bytes: bytes,
    Decimal: lambda value: Decimal(str(value)),
    **dict.fromkeys((datetime, date, time), lambda value: value.replace()),
    timedelta: lambda value: value + timedelta(),
    UUID: lambda value: UUID(int=value.int),
}
