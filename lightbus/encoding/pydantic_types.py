"""Encodes and decodes values of pydantic's types.

This module imports pydantic only for a value or a hint of one of its types, because pydantic need
not be installed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec

from lightbus.encoding.hints import class_of
from lightbus.encoding.pydantic_fields import (
    accepts_names,
    classes_within,
    has_fields,
    is_object,
    writes_aliases,
    written_fields,
)

__all__ = ["dump", "has_fields", "is_object", "is_pydantic", "validate"]

# The first version of pydantic that can read fields by their names and by their aliases
_FIRST_WITH_BY_NAME = (2, 11)


def is_pydantic(type_: Any) -> bool:
    """Return whether pydantic encodes and decodes values of `type_`.

    This is true for a pydantic model or dataclass, and for a class that defines a pydantic schema,
    such as ``HttpUrl``.
    """
    return isinstance(get_origin(type_) or type_, type) and (
        has_fields(type_) or (hasattr(type_, "__get_pydantic_core_schema__") and _is_installed())
    )


def dump(value: Any) -> Any:
    """Convert `value` with pydantic into JSON values.

    Fields are named by their serialization aliases if pydantic can read these, and by their own
    names otherwise. A field that is None is left out if None is its default but not admitted by its
    hint, because pydantic could not read it.

    Raises:
        ValueError: Two keys of a dictionary become the same key, the value hides its content, or
            the installed version of pydantic could not read the result.
        Exception: A user's serializer raised it.
    """
    class_ = value.__class__
    if hasattr(value, "get_secret_value"):
        raise ValueError("it hides its content; give what its get_secret_value() returns")
    by_alias = writes_aliases(class_)
    if not by_alias and not _name_options() and not accepts_names(class_):
        needed = ".".join(map(str, _FIRST_WITH_BY_NAME))
        raise ValueError(f"its aliases need pydantic {needed} or newer")
    options: Any = {"mode": "json", "by_alias": by_alias, "round_trip": True}
    if hasattr(value, "model_dump"):
        dumped = value.model_dump(**options)
    else:
        dumped = _adapter(class_).dump_python(value, **options)
    if _may_be_unreadable(class_):
        _remove_unreadable(value, dumped, by_alias=by_alias)
    return dumped


def validate(type_: Any, value: Any) -> Any:
    """Convert a JSON value with pydantic into an object of `type_`.

    Raises:
        ValueError: `value` does not fit.
    """
    # Validated as JSON text, because a strict model then accepts a date as text.
    body = msgspec.json.encode(value)
    try:
        return _adapter(type_).validate_json(body, **_name_options())
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None


@functools.lru_cache(maxsize=1000)
def _may_be_unreadable(class_: Any) -> bool:
    """Return whether pydantic may write a value that it cannot read, or lose a key.

    This includes the fields of nested classes.
    """
    return any(
        field.is_implicitly_optional or any(map(_has_other_keys, _hints_in(field.hint)))
        for one in {class_, *classes_within(class_, set())}
        for field in written_fields(one)
    )


def _remove_unreadable(value: Any, dumped: Any, *, by_alias: bool) -> None:
    """Remove the fields that pydantic wrote for `value` but cannot read."""
    if isinstance(dumped, dict) and (fields := written_fields(value.__class__)):
        for field in fields:
            key = (by_alias and field.alias) or field.name
            item = getattr(value, field.name, None)
            if item is None and dumped.get(key, ...) is None and field.is_implicitly_optional:
                del dumped[key]
            else:
                _remove_unreadable(item, dumped.get(key), by_alias=by_alias)
    elif isinstance(value, Mapping) and isinstance(dumped, dict):
        if len(dumped) < len(value) and len(set(map(str, value))) < len(value):
            raise ValueError("two of its keys become the same key in JSON")
        _remove_unreadable_in(value.values(), dumped.values(), by_alias=by_alias)
    elif isinstance(value, list | tuple | set | frozenset) and isinstance(dumped, list):
        _remove_unreadable_in(value, dumped, by_alias=by_alias)


def _remove_unreadable_in(
    values: Collection[Any], dumped: Collection[Any], *, by_alias: bool
) -> None:
    # A user's serializer may have changed the number of items.
    for value, dumped_value in zip(values, dumped, strict=False):
        _remove_unreadable(value, dumped_value, by_alias=by_alias)


def _has_other_keys(hint: Any) -> bool:
    """Return whether `hint` is a mapping whose keys may be other values than text."""
    class_ = class_of(hint)
    return (
        class_ is not None and issubclass(class_, Mapping) and (*get_args(hint), Any)[0] is not str
    )


def _hints_in(hint: Any) -> Iterator[Any]:
    yield hint
    for inner in get_args(hint):
        yield from _hints_in(inner)


@functools.lru_cache(maxsize=1000)
def _adapter(type_: Any) -> Any:
    import pydantic  # noqa: PLC0415 - it need not be installed

    return pydantic.TypeAdapter(type_)


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("pydantic") is not None


@functools.cache
def _name_options() -> dict[str, bool]:
    """Return the options with which pydantic reads fields by their names and by their aliases."""
    import pydantic  # noqa: PLC0415 - it need not be installed

    version = tuple(map(int, pydantic.VERSION.split(".")[:2]))
    return {"by_alias": True, "by_name": True} if version >= _FIRST_WITH_BY_NAME else {}
