"""Pydantic: which types are its own, how it writes and reads them, and their fields.

This module imports pydantic only when a value or a hint has one of its types, because pydantic need
not be installed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import keyword
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args, get_origin

import attrs
import msgspec

from lightbus.encoding.class_fields import fields_of_class
from lightbus.encoding.hints import class_of, is_wrongly_none
from lightbus.exceptions import InvalidApi

# The first version of pydantic that can read fields by their names
_WITH_NAMES = (2, 11)


def is_pydantic(type_: Any) -> bool:
    """Return whether pydantic writes and reads values of `type_`: a model, a dataclass of
    pydantic, or a class that has a schema for pydantic, such as ``HttpUrl``.
    """
    return isinstance(get_origin(type_) or type_, type) and (
        has_fields(type_) or (hasattr(type_, "__get_pydantic_core_schema__") and _is_installed())
    )


def has_fields(type_: Any) -> bool:
    """Return whether `type_` is a model or a dataclass of pydantic."""
    return hasattr(type_, "__pydantic_fields__")


def is_object(type_: Any) -> bool:
    """Return whether values of `type_`, which is one of pydantic's, are objects in JSON."""
    return has_fields(type_) and not getattr(type_, "__pydantic_root_model__", False)


def dump(value: Any) -> Any:
    """Return `value` as pydantic writes it to JSON.

    The fields have their serialization aliases if pydantic can read these again, and their own
    names otherwise. A field that is None is left out if None is its default but not admitted by its
    hint, because pydantic would not read it.

    Raises:
        ValueError: Two keys of a dictionary become the same key, the value hides its content, or
            an older pydantic would not read it.
        Exception: A serializer of a user's raised it.
    """
    class_ = value.__class__
    if hasattr(value, "get_secret_value"):
        raise ValueError("it hides its content; give what its get_secret_value() returns")
    by_alias = writes_aliases(class_)
    if not by_alias and not _any_name() and not _reads_names(class_):
        raise ValueError(f"its aliases need pydantic {_WITH_NAMES[0]}.{_WITH_NAMES[1]} or newer")
    how: Any = {"mode": "json", "by_alias": by_alias, "round_trip": True}
    if hasattr(value, "model_dump"):
        dumped = value.model_dump(**how)
    else:
        dumped = _adapter(class_).dump_python(value, **how)
    if _may_differ(class_):
        _mend(value, dumped, by_alias=by_alias)
    return dumped


def validate(type_: Any, value: Any) -> Any:
    """Return the object of `type_` that pydantic makes of a JSON value.

    Raises:
        ValueError: It does not fit.
    """
    # Validated as JSON, because a strict model then accepts a date as text.
    body = msgspec.json.encode(value)
    try:
        return _adapter(type_).validate_json(body, **_any_name())
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None


@functools.lru_cache(maxsize=1000)
def writes_aliases(type_: Any) -> bool:
    """Return whether every field in `type_`, at any depth, is read under its alias for
    serialization.
    """
    return all(
        (field.serialization_alias or field.alias or name) in _names_read(class_, name, field)
        for class_ in {type_, *_classes_within(type_, set())}
        for name, field in getattr(class_, "__pydantic_fields__", {}).items()
    )


@functools.lru_cache(maxsize=1000)
def _reads_names(type_: Any) -> bool:
    """Return whether every field in `type_`, at any depth, is read under its own name."""
    return all(
        name in _names_read(class_, name, field)
        for class_ in {type_, *_classes_within(type_, set())}
        for name, field in getattr(class_, "__pydantic_fields__", {}).items()
    )


@attrs.frozen
class DeclaredField:
    """A field of a class of pydantic, as an event's parameter.

    Attributes:
        name: The parameter's name: the class's argument for the field if that is an identifier, and
            the attribute's name otherwise.
        key: The class's argument for the field.
        attribute: The attribute that holds it.
        annotation: The type of the value.
        default: The default, which may be None; `attrs.NOTHING` if a factory makes it.
        is_required: Whether there is no default.
        is_keyword_only: Whether it must be given by name.
    """

    name: str
    key: str
    attribute: str
    annotation: Any
    default: Any
    is_required: bool
    is_keyword_only: bool


def declared_fields(class_: Any) -> list[DeclaredField]:
    """Return the fields of a class of pydantic that an event carries.

    They include a field that pydantic excludes only if the class requires it.

    Raises:
        InvalidApi: The class cannot declare an event.
    """
    if not is_object(class_):
        raise InvalidApi(
            f"{class_.__qualname__} cannot declare an event: a RootModel has no named fields. Give "
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
        if _is_carried(class_, attribute, field)
        for key in [_key_of(class_, attribute, field)]
    ]


def admits_others(class_: Any) -> bool:
    """Return whether a class of pydantic keeps extra values beside its fields."""
    return bool(_config_of(class_).get("extra") == "allow")


def extras_of(value: Any) -> dict[str, Any]:
    """Return the extra values that an object of a class of pydantic keeps beside its fields."""
    return dict(getattr(value, "__pydantic_extra__", None) or {})


@functools.lru_cache(maxsize=1000)
def _may_differ(class_: Any) -> bool:
    """Return whether pydantic may write what it cannot read, or lose a key, at any depth."""
    return any(
        member.is_wrongly_none or any(map(_has_other_keys, _hints_in(member.hint)))
        for one in {class_, *_classes_within(class_, set())}
        for member in _members_of(one)
    )


def _mend(value: Any, dumped: Any, *, by_alias: bool) -> None:
    """Remove parts that pydantic has written for `value` but could not read."""
    if isinstance(dumped, dict) and (members := _members_of(value.__class__)):
        for member in members:
            key = (by_alias and member.alias) or member.name
            item = getattr(value, member.name, None)
            if item is None and dumped.get(key, ...) is None and member.is_wrongly_none:
                del dumped[key]
            else:
                _mend(item, dumped.get(key), by_alias=by_alias)
    elif isinstance(value, Mapping) and isinstance(dumped, dict):
        if len(dumped) < len(value) and len(set(map(str, value))) < len(value):
            raise ValueError("two of its keys become the same key in JSON")
        _mend_each(value.values(), dumped.values(), by_alias=by_alias)
    elif isinstance(value, list | tuple | set | frozenset) and isinstance(dumped, list):
        _mend_each(value, dumped, by_alias=by_alias)


def _mend_each(values: Collection[Any], dumped: Collection[Any], *, by_alias: bool) -> None:
    # A serializer of a user's may have changed their number.
    for value, written in zip(values, dumped, strict=False):
        _mend(value, written, by_alias=by_alias)


@attrs.frozen
class _Member:
    """A field of a class that pydantic writes.

    Attributes:
        name: The attribute that holds it.
        alias: Its alias for serialization; None where there is none.
        hint: Its type.
        is_wrongly_none: Whether None is the default of a field whose hint does not say so.
    """

    name: str
    alias: str | None
    hint: Any
    is_wrongly_none: bool


@functools.lru_cache(maxsize=1000)
def _members_of(class_: Any) -> tuple[_Member, ...]:
    if not has_fields(class_):
        # Inside its own classes, pydantic writes other classes by itself.
        others = (fields_of_class(class_) or ()) if dataclasses.is_dataclass(class_) else ()
        return tuple(
            _Member(one.name, None, one.hint, is_wrongly_none(one.hint, one.default))
            for one in others
        )
    return tuple(
        _Member(
            name,
            field.serialization_alias or field.alias,
            field.annotation,
            is_wrongly_none(field.annotation, field.default),
        )
        for name, field in class_.__pydantic_fields__.items()
    )


def _has_other_keys(hint: Any) -> bool:
    """Return whether the keys of a mapping need not be text."""
    class_ = class_of(hint)
    return (
        class_ is not None and issubclass(class_, Mapping) and (*get_args(hint), Any)[0] is not str
    )


def _is_carried(class_: Any, attribute: str, field: Any) -> bool:
    if getattr(field, "init_var", False):
        raise InvalidApi(
            f"{class_.__qualname__} cannot declare an event: it takes {attribute!r}, and has no "
            f"such field for the event to carry."
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
    if _takes_names(class_):
        return attribute
    raise InvalidApi(
        f"{class_.__qualname__} cannot declare an event: its field {attribute!r} is read from "
        f"inside another value. Set populate_by_name, or give the field a name of its own."
    )


def _names_read(class_: Any, attribute: str, field: Any) -> set[str]:
    alias = field.validation_alias or field.alias
    reads_aliases = _config_of(class_).get("validate_by_alias") is not False
    aliases = {
        key
        for key in (_aliases_in(alias) if alias is not None and reads_aliases else ())
        if isinstance(key, str)
    }
    reads_name = alias is None or not reads_aliases or _takes_names(class_)
    return aliases | ({attribute} if reads_name else set())


def _aliases_in(alias: Any) -> list[Any]:
    """Return the choices of a validation alias; those that are no text are paths."""
    return list(getattr(alias, "choices", [alias]))


def _takes_names(class_: Any) -> bool:
    config = _config_of(class_)
    return bool(config.get("populate_by_name") or config.get("validate_by_name"))


def _config_of(class_: Any) -> dict[str, Any]:
    # That of a model, and that of a dataclass
    return getattr(class_, "model_config", None) or getattr(class_, "__pydantic_config__", {})


def _classes_within(hint: Any, seen: set[Any]) -> Iterator[Any]:
    if isinstance(hint, type) and hint not in seen and (members := _members_of(hint)):
        seen.add(hint)
        yield hint
        for member in members:
            yield from _classes_within(member.hint, seen)
    for inner in get_args(hint):
        yield from _classes_within(inner, seen)


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
def _any_name() -> dict[str, bool]:
    """Return options that make pydantic read fields by their names as well as by their aliases."""
    import pydantic  # noqa: PLC0415 - it need not be installed

    version = tuple(map(int, pydantic.VERSION.split(".")[:2]))
    return {"by_alias": True, "by_name": True} if version >= _WITH_NAMES else {}
