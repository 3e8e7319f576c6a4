"""Reads the fields of pydantic's models and dataclasses, and which names they accept.

This module does not import pydantic, which need not be installed.
"""

from __future__ import annotations

import dataclasses
import functools
import keyword
from collections.abc import Iterator
from typing import Any, get_args

import attrs

from lightbus.encoding.class_fields import fields_of_class
from lightbus.encoding.hints import is_implicitly_optional
from lightbus.exceptions import ApiError


def has_fields(type_: Any) -> bool:
    """Return whether `type_` is a pydantic model or dataclass."""
    return hasattr(type_, "__pydantic_fields__")


def is_object(type_: Any) -> bool:
    """Return whether pydantic encodes values of `type_` as JSON objects."""
    return has_fields(type_) and not getattr(type_, "__pydantic_root_model__", False)


@functools.lru_cache(maxsize=1000)
def writes_aliases(type_: Any) -> bool:
    """Return whether pydantic can read every field in `type_` under its serialization alias.

    This includes the fields of nested classes.
    """
    return all(
        (field.serialization_alias or field.alias or name) in _accepted_keys(class_, name, field)
        for class_ in {type_, *classes_within(type_, set())}
        for name, field in getattr(class_, "__pydantic_fields__", {}).items()
    )


@functools.lru_cache(maxsize=1000)
def accepts_names(type_: Any) -> bool:
    """Return whether pydantic can read every field in `type_` under its own name.

    This includes the fields of nested classes.
    """
    return all(
        name in _accepted_keys(class_, name, field)
        for class_ in {type_, *classes_within(type_, set())}
        for name, field in getattr(class_, "__pydantic_fields__", {}).items()
    )


@attrs.frozen
class DeclaredField:
    """A field of a pydantic model or dataclass, as a parameter of an event.

    Attributes:
        name: The name of the parameter: `key` if that is an identifier, and `attribute` otherwise.
        key: The keyword argument of the class for the field.
        attribute: The name of the attribute.
        annotation: The type of the value.
        default: The default, which may be None; `attrs.NOTHING` if a factory creates it.
        is_required: Whether there is no default.
        is_keyword_only: Whether the class accepts the value only as a keyword argument.
    """

    name: str
    key: str
    attribute: str
    annotation: Any
    default: Any
    is_required: bool
    is_keyword_only: bool


def declared_fields(class_: Any) -> list[DeclaredField]:
    """Return the fields of a pydantic class that become parameters of an event.

    A field with ``exclude=True`` is included only if it is required.

    Raises:
        ApiError: The class cannot declare an event.
    """
    if not is_object(class_):
        raise ApiError(
            f"{class_.__qualname__} cannot declare an event: a RootModel has no named fields. Use "
            f"a parameter of this type instead: Parameter('name', {class_.__qualname__})."
        )
    return [
        DeclaredField(
            name=key if key.isidentifier() and not keyword.iskeyword(key) else attribute,
            key=key,
            attribute=attribute,
            annotation=field.annotation,
            default=field.default if field.default_factory is None else attrs.NOTHING,
            is_required=field.is_required(),
            is_keyword_only=bool(field.kw_only),
        )
        for attribute, field in class_.__pydantic_fields__.items()
        if _is_parameter(class_, attribute, field)
        for key in [_key_of(class_, attribute, field)]
    ]


def allows_extra(class_: Any) -> bool:
    """Return whether a pydantic class keeps extra values beside its fields."""
    return bool(_config_of(class_).get("extra") == "allow")


def extras_of(value: Any) -> dict[str, Any]:
    """Return the extra values that a pydantic object keeps beside its fields."""
    return dict(getattr(value, "__pydantic_extra__", None) or {})


@attrs.frozen
class WrittenField:
    """A field that pydantic writes.

    Attributes:
        name: The name of the attribute.
        alias: The serialization alias; None if there is none.
        hint: The type hint.
        is_implicitly_optional: Whether the default is None although the hint does not admit None.
    """

    name: str
    alias: str | None
    hint: Any
    is_implicitly_optional: bool


@functools.lru_cache(maxsize=1000)
def written_fields(class_: Any) -> tuple[WrittenField, ...]:
    """Return the fields that pydantic writes for a class, which may be a standard dataclass."""
    if not has_fields(class_):
        # Inside its own classes, pydantic writes standard dataclasses by itself.
        others = (fields_of_class(class_) or ()) if dataclasses.is_dataclass(class_) else ()
        return tuple(
            WrittenField(f.name, None, f.hint, is_implicitly_optional(f.hint, f.default))
            for f in others
        )
    return tuple(
        WrittenField(
            name,
            field.serialization_alias or field.alias,
            field.annotation,
            is_implicitly_optional(field.annotation, field.default),
        )
        for name, field in class_.__pydantic_fields__.items()
    )


def _is_parameter(class_: Any, attribute: str, field: Any) -> bool:
    if getattr(field, "init_var", False):
        raise ApiError(
            f"{class_.__qualname__} cannot declare an event: it requires {attribute!r}, but has no "
            "such field."
        )
    is_excluded = field.exclude and not field.is_required()
    return getattr(field, "init", None) is not False and not is_excluded


def _key_of(class_: Any, attribute: str, field: Any) -> str:
    alias = field.validation_alias or field.alias
    if alias is None or _config_of(class_).get("validate_by_alias") is False:
        return attribute
    keys = [key for key in _aliases_in(alias) if isinstance(key, str)]
    if keys:
        return keys[0]
    if _is_read_by_name(class_):
        return attribute
    raise ApiError(
        f"{class_.__qualname__} cannot declare an event: the alias of its field {attribute!r} is a "
        "path into another value. Set populate_by_name, or give the field a plain alias."
    )


def _accepted_keys(class_: Any, attribute: str, field: Any) -> set[str]:
    """Return the keys of a JSON object from which pydantic reads a field."""
    alias = field.validation_alias or field.alias
    reads_aliases = _config_of(class_).get("validate_by_alias") is not False
    aliases = {
        key
        for key in (_aliases_in(alias) if alias is not None and reads_aliases else ())
        if isinstance(key, str)
    }
    reads_name = alias is None or not reads_aliases or _is_read_by_name(class_)
    return aliases | ({attribute} if reads_name else set())


def _aliases_in(alias: Any) -> list[Any]:
    """Return the choices of a validation alias. A choice that is not text is a path."""
    return list(getattr(alias, "choices", [alias]))


def _is_read_by_name(class_: Any) -> bool:
    config = _config_of(class_)
    return bool(config.get("populate_by_name") or config.get("validate_by_name"))


def _config_of(class_: Any) -> dict[str, Any]:
    # Models and dataclasses keep it in different attributes.
    return getattr(class_, "model_config", None) or getattr(class_, "__pydantic_config__", {})


def classes_within(hint: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield the classes within `hint` that pydantic writes, and the classes of their fields."""
    if isinstance(hint, type) and hint not in seen and (fields := written_fields(hint)):
        seen.add(hint)
        yield hint
        for field in fields:
            yield from classes_within(field.hint, seen)
    for inner in get_args(hint):
        yield from classes_within(inner, seen)
