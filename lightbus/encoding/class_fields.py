"""Reads the fields of users' classes, and creates objects from field values."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import attrs
import msgspec


@attrs.frozen
class ClassField:
    """A field of a class.

    Attributes:
        name: The name of the attribute.
        key: The key of the field in the JSON object.
        hint: The type hint.
        default: The default value; `attrs.NOTHING` if there is none, or if a factory creates it.
        is_required: Whether there is no default.
    """

    name: str
    key: str
    hint: Any
    default: Any
    is_required: bool


def fields_of_class(class_: Any) -> list[ClassField] | None:
    """Return the fields of a dataclass, an attrs class, a Struct, a named tuple or a TypedDict.

    `class_` may be a generic form such as ``Box[int]``. Returns None for anything else.

    Raises:
        Exception: The type hints of the class are invalid.
    """
    origin = get_origin(class_) or class_
    if not isinstance(origin, type):
        return None
    keys_and_defaults = _keys_and_defaults(origin)
    if keys_and_defaults is None:
        return None
    hints = hints_of(class_)
    if any(isinstance(hint, dataclasses.InitVar) for hint in hints.values()):
        raise TypeError(f"{origin.__qualname__} takes an InitVar, which does not travel")
    return [
        ClassField(
            name=name,
            key=key,
            hint=_without_qualifier(hints.get(name, Any)),
            default=default,
            is_required=is_required,
        )
        for name, (key, default, is_required) in keys_and_defaults.items()
    ]


def has_fields(class_: Any) -> bool:
    """Return whether `fields_of_class` returns fields for `class_`."""
    return isinstance(class_, type) and (
        dataclasses.is_dataclass(class_)
        or attrs.has(class_)
        or issubclass(class_, msgspec.Struct)
        or typing.is_typeddict(class_)
        or is_named_tuple(class_)
    )


def is_named_tuple(type_: Any) -> bool:
    """Return whether `type_` is a class of named tuples."""
    class_ = get_origin(type_) or type_
    return isinstance(class_, type) and issubclass(class_, tuple) and hasattr(class_, "_fields")


def make_object(class_: Any, values: Mapping[str, Any]) -> Any:
    """Create an object of a class that has fields.

    Like the decoder, this creates dataclasses and attrs classes without calling ``__init__``: the
    values already have the types of the fields.

    Args:
        class_: The class.
        values: The values, by the names of the attributes.

    Raises:
        Exception: The class refuses the values.
    """
    origin: Any = get_origin(class_) or class_
    if typing.is_typeddict(origin):
        return dict(values)
    is_of_attrs = attrs.has(origin)
    if not is_of_attrs and not dataclasses.is_dataclass(origin):
        return origin(**values)
    new: Any = origin.__new__
    instance = new(origin)
    for name, make_default in _default_makers(origin, instance):
        if name in values:
            object.__setattr__(instance, name, values[name])
        elif make_default is not None:
            object.__setattr__(instance, name, make_default())
    if is_of_attrs:
        attrs.validate(instance)
    post_init = getattr(instance, "__attrs_post_init__", None)
    post_init = post_init or getattr(instance, "__post_init__", None)
    if post_init is not None:
        post_init()
    return instance


def hints_of(class_: Any) -> dict[str, Any]:
    """Return the type hints of a class's fields.

    For a generic form such as ``Box[int]``, type variables are replaced by their arguments.

    Raises:
        Exception: A hint is invalid, or refers to an unknown name.
    """
    origin = get_origin(class_) or class_
    arguments = dict(zip(getattr(origin, "__parameters__", ()), get_args(class_), strict=False))
    hints = typing.get_type_hints(origin, include_extras=True)
    inherited_hints: dict[str, Any] = {}
    for base in reversed(getattr(origin, "__orig_bases__", ())):
        if isinstance(get_origin(base), type) and get_origin(base) is not typing.Generic:
            inherited_hints |= hints_of(_substitute(base, arguments))
    own = inspect.get_annotations(origin)
    return {
        name: inherited_hints[name]
        if name in inherited_hints and name not in own
        else _substitute(hint, arguments)
        for name, hint in hints.items()
    }


def _substitute(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return `hint` with its type variables replaced by their `arguments`."""
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if not arguments or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(arguments.get(variable, variable) for variable in variables)]


def _keys_and_defaults(class_: type[Any]) -> dict[str, tuple[str, Any, bool]] | None:
    """Return the key, the default and whether it is required, for each field of a class."""
    if dataclasses.is_dataclass(class_):
        return {f.name: (f.name, *_dataclass_default(f)) for f in dataclasses.fields(class_)}
    if attrs.has(class_):
        return {f.name: (f.name, *_default(f.default)) for f in attrs.fields(class_)}
    if issubclass(class_, msgspec.Struct):
        return {
            f.name: (f.encode_name, *_struct_default(f)) for f in msgspec.structs.fields(class_)
        }
    if typing.is_typeddict(class_):
        names = typing.get_type_hints(class_)
        required = class_.__required_keys__
        return {name: (name, attrs.NOTHING, name in required) for name in names}
    if is_named_tuple(class_):
        defaults = class_._field_defaults
        return {
            name: (name, defaults.get(name, attrs.NOTHING), name not in defaults)
            for name in class_._fields
        }
    return None


def _default(default: Any) -> tuple[Any, bool]:
    is_factory = isinstance(default, attrs.Factory)  # type: ignore[arg-type]
    return (attrs.NOTHING if is_factory else default), default is attrs.NOTHING


def _dataclass_default(field: dataclasses.Field[Any]) -> tuple[Any, bool]:
    if field.default_factory is not dataclasses.MISSING:
        return attrs.NOTHING, False
    is_missing = field.default is dataclasses.MISSING
    return (attrs.NOTHING if is_missing else field.default), is_missing and field.init


def _struct_default(field: msgspec.structs.FieldInfo) -> tuple[Any, bool]:
    is_missing = field.default is msgspec.NODEFAULT
    return (attrs.NOTHING if is_missing else field.default), field.required


def _default_makers(class_: Any, instance: Any) -> list[tuple[str, Callable[[], Any] | None]]:
    """Return the fields of a dataclass or attrs class, each with the function for its default."""
    if dataclasses.is_dataclass(class_):
        return [(field.name, _dataclass_maker(field)) for field in dataclasses.fields(class_)]
    return [(field.name, _attrs_maker(field.default, instance)) for field in attrs.fields(class_)]


def _dataclass_maker(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return None if field.default is dataclasses.MISSING else lambda: field.default


def _attrs_maker(default: Any, instance: Any) -> Callable[[], Any] | None:
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return (lambda: default.factory(instance)) if default.takes_self else default.factory
    return None if default is attrs.NOTHING else lambda: default


_QUALIFIERS = (typing.Required, typing.NotRequired, typing.Final, typing.ClassVar)


def _without_qualifier(hint: Any) -> Any:
    while get_origin(hint) in _QUALIFIERS:
        (hint,) = get_args(hint)
    return hint
