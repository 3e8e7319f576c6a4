"""Converts parsed settings into a settings class, with errors that state the path."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from lightbus.exceptions import ConfigError
from lightbus.names import did_you_mean

T = TypeVar("T")


def convert_settings(data: Any, class_: type[T], *, source: str, path: str = "$") -> T:
    """Convert the content of a config file, or of an argument, into a settings class.

    Args:
        data: The settings, as mappings, lists and scalars.
        class_: A class that `msgspec` supports.
        source: The file or argument that contains `data`, for error messages.
        path: The path of `data` in `source`.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type.
    """
    try:
        # Not strict, so that text such as "${PORT}" is accepted for a number.
        return msgspec.convert(data, class_, strict=False)
    except msgspec.ValidationError as error:
        problem, _, suffix = str(error).partition(" - at `$")
    # Not chained to that error, whose text may quote a password.
    if unknown := re.search(r"unknown field `(.*)`", problem):
        key, known_keys = unknown.group(1), _keys(msgspec.inspect.type_info(class_), suffix)
        problem = f"unknown setting {key!r}.{did_you_mean(key, known_keys)}"
    elif problem.startswith("Invalid enum value"):
        choices = _choices(msgspec.inspect.type_info(class_), suffix)
        problem += f"; give one of {', '.join(choices)}"
    raise ConfigError(problem, source=source, path=path + suffix.rstrip("`"))


def _keys(type_: msgspec.inspect.Type, path: str) -> list[str]:
    """Return the keys that are allowed at `path`, such as ``.retry``, in a value of `type_`."""
    return [name for one in _types_at(type_, path) for name in _fields(one)]


def _choices(type_: msgspec.inspect.Type, path: str) -> list[str]:
    """Return the texts that are allowed at `path` in a value of `type_`."""
    return [
        str(choice)
        for one in _types_at(type_, path)
        if isinstance(one, msgspec.inspect.LiteralType)
        for choice in one.values
    ]


def _types_at(type_: msgspec.inspect.Type, path: str) -> list[msgspec.inspect.Type]:
    key, _, rest = path.rstrip("`").lstrip(".").partition(".")
    types = list(type_.types) if isinstance(type_, msgspec.inspect.UnionType) else [type_]
    if not key:
        return types
    all_fields = [_fields(one) for one in types]
    return [one for fields in all_fields if key in fields for one in _types_at(fields[key], rest)]


def _fields(type_: msgspec.inspect.Type) -> dict[str, msgspec.inspect.Type]:
    return {field.encode_name: field.type for field in getattr(type_, "fields", ())}
