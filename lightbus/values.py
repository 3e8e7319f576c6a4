"""Values of users' classes: what of them travels, and how they are made again."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    Optional,
    TypedDict,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

import attrs
import msgspec

# The encoder's own words are followed by the value.
# Of an enum, or of the tag of a union
_VALUE = re.compile(r"(?s)Invalid (enum )?value .*?(?= - at `\$)|Invalid (enum )?value .*")

_PLAIN = frozenset(
    {str, int, float, bool, types.NoneType, bytes}
    | {datetime, date, time, timedelta, Decimal, UUID}
)


def are_plain(values: Iterable[object]) -> bool:
    """Return whether no class of a user has a say in how `values` travel."""
    return _PLAIN.issuperset(map(type, values))


def to_bus(value: Any) -> Any:
    """Return `value`, with what ``__to_bus__`` returns in the place of each object that has it."""
    if type(value) in _PLAIN:
        return value
    if hasattr(type(value), "__to_bus__"):
        return to_bus(value.__to_bus__())
    if isinstance(value, list | tuple | set | frozenset):
        return value if are_plain(value) else _items_to_bus(value)
    if isinstance(value, dict):
        if are_plain(value.values()):
            return value
        return {name: to_bus(item) for name, item in value.items()}
    return _fields_to_bus(value)


def encode_unknown(value: Any) -> Any:
    """Return what travels of an object that the encoder does not know.

    Raises:
        TypeError: Nothing does.
    """
    if hasattr(value, "model_dump"):  # of pydantic, which need not be installed
        return _model_fields(value)
    raise TypeError(f"Encoding objects of type {type(value).__qualname__} is unsupported")


def decode_unknown(type_: Any, value: Any) -> Any:
    """Return the object of a type that the decoder does not know, made of `value`.

    Raises:
        NotImplementedError: It can not be made.
    """
    if isinstance(type_, _StandIn):
        type_ = type_.stands_for
    class_ = get_origin(type_) or type_
    if hasattr(class_, "__from_bus__"):
        return class_.__from_bus__(value)
    if hasattr(class_, "model_validate_json"):
        try:
            # As JSON, of which a strict model takes the text of a date.
            return type_.model_validate_json(msgspec.json.encode(value))
        except ValueError as error:
            raise ValueError(told(error)) from None
    raise NotImplementedError


def decodable(hint: Any) -> Any:
    """Return the type that has the decoder make what `hint` says; Any where it can not."""
    try:
        type_ = mapped(hint, _stand_in)
        # Some hints, such as `Final`, are none in a `TypedDict`, which is where this one goes.
        _ = msgspec.json.Decoder(parameters_of({"one": type_}))
        return Any if _holds_unknown(msgspec.inspect.type_info(type_), set()) else type_
    except Exception:  # of a hint that is no type, or whose own hints are wrong
        return Any


def mapped(
    hint: Any, change: Callable[[Any], Any], *, is_whole: Callable[[Any], bool] = lambda _: False
) -> Any:
    """Return `hint`, with what `change` returns in the place of each type that it is made of.

    Args:
        hint: A type hint.
        change: Given a type, returns it or another.
        is_whole: Told what a generic type is a form of, returns whether that is not looked into.

    Raises:
        Exception: It is no type.
    """
    changed = change(hint)
    inner = functools.partial(mapped, change=change, is_whole=is_whole)
    if isinstance(hint, NewType):
        alike = inner(hint.__supertype__)
        return hint if alike is hint.__supertype__ else alike
    origin, args = get_origin(hint), get_args(hint)
    if changed is not hint or not args or origin is Literal or is_whole(origin):
        return changed
    if origin is Annotated:
        return Annotated[inner(args[0]), *hint.__metadata__]
    replaced = tuple(map(inner, args))
    if replaced == args:
        return hint
    is_union = origin in (Union, types.UnionType)
    return Union[replaced] if is_union else typing.cast("Any", origin)[replaced]  # noqa: UP007


def parameters_of(types: Mapping[str, Any]) -> Any:
    """Return the type of an object that has values of `types`. Some may be missing."""
    return TypedDict("Parameters", dict(types), total=False)  # type: ignore[operator]


def optional(hint: Any) -> Any:
    """Return the type of what `hint` says, or None; Any where `hint` is no type."""
    try:
        return Optional[hint]  # noqa: UP045 - no literal
    except TypeError:
        return Any


def told(error: Exception) -> str:
    """Return what `error` says, without the value that it is about where that is known: it may be a
    secret.
    """
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # of pydantic
        found = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)
    return _VALUE.sub(lambda found: f"Invalid {found[1] or found[2] or ''}value", str(error))


def fields_of(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of an object by the names that its class takes them under.

    Raises:
        AttributeError: It does not keep one of them.
    """
    if hasattr(value, "model_dump"):
        return _model_fields(value)
    attributes = field_names_of(type(value)) or {}
    return {name: getattr(value, attributes.get(name, name)) for name in names}


def field_names_of(class_: type[Any]) -> dict[str, str] | None:
    """Return the attributes that hold what the `__init__` of a class takes, by the names there;
    None where that is not known.
    """
    if dataclasses.is_dataclass(class_):
        return {field.name: field.name for field in dataclasses.fields(class_) if field.init}
    if attrs.has(class_):
        return {
            field.alias or field.name: field.name for field in attrs.fields(class_) if field.init
        }
    if hasattr(class_, "model_fields"):
        return {field.alias or name: name for name, field in class_.model_fields.items()}
    if issubclass(class_, msgspec.Struct) or hasattr(class_, "_fields"):  # a named tuple
        names = getattr(class_, "__struct_fields__", getattr(class_, "_fields", ()))
        return {name: name for name in names}
    return None


def _model_fields(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = value.model_dump(mode="json", by_alias=True, round_trip=True)
    return found


def _items_to_bus(value: Any) -> list[Any]:
    return [to_bus(item) for item in value]


def _fields_to_bus(value: Any) -> Any:
    before = {name: getattr(value, name, None) for name in _field_names(value.__class__)}
    if attrs.has(value.__class__):
        # The encoder leaves out what begins with an underscore.
        return {name: to_bus(item) for name, item in before.items()}
    if are_plain(before.values()):
        return value
    after = {name: to_bus(item) for name, item in before.items()}
    changed = [name for name in before if after[name] is not before[name]]
    if not changed:
        return value
    # A copy is not made by `__init__`, which may change values, and works where one is frozen.
    copied = copy.copy(value)
    set_field = msgspec.structs.force_setattr if isinstance(value, msgspec.Struct) else _set
    for name in changed:
        set_field(copied, name, after[name])
    return copied


_set = object.__setattr__


@functools.lru_cache(maxsize=1000)
def _field_names(type_: type[Any]) -> tuple[str, ...]:
    if dataclasses.is_dataclass(type_):
        return tuple(field.name for field in dataclasses.fields(type_))
    if attrs.has(type_):
        return tuple(field.name for field in attrs.fields(type_))
    if issubclass(type_, msgspec.Struct):
        return type_.__struct_fields__
    return ()


class _StandIn(type):
    """A class in whose place the decoder asks `decode_unknown`, for it would make it by itself."""

    stands_for: type[Any]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def _stand_in(hint: Any) -> Any:
    is_own = isinstance(hint, type) and hasattr(hint, "__from_bus__")
    return _StandIn(hint.__name__, (), {"stands_for": hint}) if is_own else hint


def _holds_unknown(node: object, seen: set[int]) -> bool:
    """Return whether a description by `msgspec` holds a type that nobody can make."""
    if id(node) in seen:
        return False
    seen.add(id(node))
    if isinstance(node, tuple):
        return any(_holds_unknown(item, seen) for item in node)
    if isinstance(node, msgspec.inspect.CustomType):
        is_known = hasattr(node.cls, "__from_bus__") or hasattr(node.cls, "model_validate_json")
        return not is_known and not isinstance(node.cls, _StandIn)
    names = node.__struct_fields__ if isinstance(node, msgspec.Struct) else ()
    return any(_holds_unknown(getattr(node, name), seen) for name in names)
