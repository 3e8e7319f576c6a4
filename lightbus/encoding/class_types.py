"""Classes whose fields need readers of their own: the JSON object of the fields, and its schema."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NotRequired, TypedDict, Union

import attrs
import msgspec

from lightbus.encoding.class_fields import ClassField, is_named_tuple
from lightbus.encoding.own_types import described


def is_array(class_: type[Any]) -> bool:
    """Return whether values of a class with fields may travel as arrays of these."""
    return is_named_tuple(class_) or getattr(_struct_config(class_), "array_like", False)


def tag_of(class_: type[Any]) -> tuple[str, Any] | None:
    """Return the field that identifies values of a Struct, and its value."""
    config = _struct_config(class_)
    return None if config is None or config.tag is None else (config.tag_field, config.tag)


def tagged_like(class_: type[Any]) -> type[msgspec.Struct]:
    """Return a Struct without fields that has the tag of another one."""
    config = _struct_config(class_)
    return msgspec.defstruct("Tagged", [], tag=config.tag, tag_field=config.tag_field)


def object_type(class_: Any, fields: list[ClassField], types: Mapping[str, Any]) -> Any:
    """Return the type of the JSON object that a class's fields are read from."""
    members = {
        field.key: types[field.name] if field.is_required else NotRequired[types[field.name]]
        for field in fields
    }
    config = _struct_config(class_)
    if config is not None and config.tag is not None:
        members[config.tag_field] = NotRequired[Literal[config.tag]]
    return TypedDict(class_.__name__, members)  # type: ignore[operator]


def refuse_unknown_fields(class_: Any, value: Any, known: Collection[str]) -> None:
    """Make sure that a JSON object has no fields that its class forbids.

    Raises:
        ValueError: It has.
    """
    config = _struct_config(class_)
    if config is None or not config.forbid_unknown_fields or not isinstance(value, dict):
        return
    for key in value:
        if key not in known and key != config.tag_field:
            raise ValueError(f"Object contains unknown field `{key}`")


def describer(class_: Any, fields: list[ClassField], types: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what makes a Struct with the JSON Schema of what a class travels as."""
    config = _struct_config(class_)
    made = msgspec.defstruct(
        class_.__name__,
        [_described_field(field) for field in fields],
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
    is_described = False

    def describe() -> Any:
        nonlocal is_described
        if not is_described:
            # Set first, because a field may have the class itself as its type.
            is_described = True
            made.__annotations__ = {
                field.name: _described_type(field, types[field.name]) for field in fields
            }
        return made

    return describe


def _described_type(field: ClassField, type_: Any) -> Any:
    if field.default is msgspec.UNSET:
        return Union[described(type_), msgspec.UnsetType]  # noqa: UP007 - no literal
    return described(type_)


def _described_field(field: ClassField) -> Any:
    if field.is_required:
        return field.name, Any
    if field.default is attrs.NOTHING or not _may_be_default(field.default):
        return field.name, Any, msgspec.field(default_factory=_unknown)
    return field.name, Any, field.default


def _unknown() -> None:
    """Stand for a default from a factory, which a schema does not state."""


def _may_be_default(value: Any) -> bool:
    return not isinstance(value, list | dict | set | bytearray | msgspec.Struct)


def _struct_config(class_: Any) -> Any:
    return getattr(class_, "__struct_config__", None)
