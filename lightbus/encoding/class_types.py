"""Builds the JSON object type, and the schema type, of a class that needs a reader of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NotRequired, TypedDict, Union

import attrs
import msgspec

from lightbus.encoding.class_fields import ClassField, is_named_tuple
from lightbus.encoding.custom_types import schema_type_of


def is_array(class_: type[Any]) -> bool:
    """Return whether objects of a class may be encoded as an array of their fields."""
    return is_named_tuple(class_) or getattr(_struct_config(class_), "array_like", False)


def tag_of(class_: type[Any]) -> tuple[str, Any] | None:
    """Return the name and the value of the field that identifies a tagged Struct."""
    config = _struct_config(class_)
    return None if config is None or config.tag is None else (config.tag_field, config.tag)


def tag_type(class_: type[Any]) -> type[msgspec.Struct]:
    """Return a Struct that has only the tag of `class_`."""
    config = _struct_config(class_)
    return msgspec.defstruct("Tagged", [], tag=config.tag, tag_field=config.tag_field)


def json_object_type(class_: Any, fields: list[ClassField], types: Mapping[str, Any]) -> Any:
    """Return the type of the JSON object that contains the fields of a class."""
    members = {
        field.key: types[field.name] if field.is_required else NotRequired[types[field.name]]
        for field in fields
    }
    config = _struct_config(class_)
    if config is not None and config.tag is not None:
        members[config.tag_field] = NotRequired[Literal[config.tag]]
    return TypedDict(class_.__name__, members)  # type: ignore[operator]


def refuse_unknown_fields(class_: Any, value: Any, known: Collection[str]) -> None:
    """Refuse a JSON object with unknown fields if its class forbids them.

    Raises:
        ValueError: The object has a field that the class forbids.
    """
    config = _struct_config(class_)
    if config is None or not config.forbid_unknown_fields or not isinstance(value, dict):
        return
    for key in value:
        if key not in known and key != config.tag_field:
            raise ValueError(f"Object contains unknown field `{key}`")


def schema_type_maker(
    class_: Any, fields: list[ClassField], types: Mapping[str, Any]
) -> Callable[[], Any]:
    """Return a function that returns a Struct whose JSON Schema describes the encoded class."""
    config = _struct_config(class_)
    schema_type = msgspec.defstruct(
        class_.__name__,
        [_schema_field(field) for field in fields],
        module=class_.__module__,
        namespace={"__doc__": class_.__doc__, "__qualname__": class_.__qualname__},
        rename={field.name: field.key for field in fields},
        kw_only=True,
        tag=config and config.tag,
        tag_field=config and config.tag_field,
        omit_defaults=config is not None and config.omit_defaults,
        forbid_unknown_fields=config is not None and config.forbid_unknown_fields,
        array_like=config is not None and config.array_like,
    )
    has_types = False

    def make_schema_type() -> Any:
        nonlocal has_types
        if not has_types:
            # Set first, because a field may have the class itself as its type.
            has_types = True
            schema_type.__annotations__ = {
                field.name: _type_of_field(field, types[field.name]) for field in fields
            }
        return schema_type

    return make_schema_type


def _type_of_field(field: ClassField, type_: Any) -> Any:
    if field.default is msgspec.UNSET:
        return Union[schema_type_of(type_), msgspec.UnsetType]  # noqa: UP007 - no literal
    return schema_type_of(type_)


def _schema_field(field: ClassField) -> Any:
    if field.is_required:
        return field.name, Any
    if field.default is attrs.NOTHING or _is_mutable(field.default):
        return field.name, Any, msgspec.field(default_factory=_unknown_default)
    return field.name, Any, field.default


def _unknown_default() -> None:
    """Stand in for a default that a schema does not state, such as that of a factory."""


def _is_mutable(value: Any) -> bool:
    return isinstance(value, list | dict | set | bytearray | msgspec.Struct)


def _struct_config(class_: Any) -> Any:
    return getattr(class_, "__struct_config__", None)
