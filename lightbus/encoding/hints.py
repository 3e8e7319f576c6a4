"""Inspects and transforms type hints."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Hashable
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    Optional,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)


def map_hint(
    hint: Any, change: Callable[[Any], Any], *, is_whole: Callable[[Any], bool] = lambda _: False
) -> Any:
    """Return `hint` with each of its types replaced by the result of `change`.

    Args:
        hint: A type hint.
        change: Takes a type, and returns the same type or another one.
        is_whole: Takes the origin of a generic type, and returns whether to keep its arguments.

    Raises:
        Exception: `hint` is not a valid type hint.
    """
    changed = change(hint)
    inner = functools.partial(map_hint, change=change, is_whole=is_whole)
    if (target := resolve_alias(hint)) is not hint:
        mapped = inner(target)
        return hint if mapped is target else mapped
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


def make_optional(hint: Any) -> Any:
    """Return the type of `hint` or None; Any if `hint` is not a valid type."""
    try:
        return Optional[hint]  # noqa: UP045 - no literal
    except TypeError:
        return Any


def admits_none(hint: Any) -> bool:
    """Return whether None is a value of `hint`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return admits_none(args[0])
    if (target := resolve_alias(hint)) is not hint:
        return admits_none(target)
    if origin in (Union, types.UnionType):
        return any(map(admits_none, args))
    return hint in (None, type(None)) or (origin is Literal and None in args)


def is_implicitly_optional(hint: Any, default: Any) -> bool:
    """Return whether the default of a field is None although its hint does not admit None."""
    is_any = hint is Any or isinstance(hint, TypeVar)
    return default is None and not is_any and not admits_none(hint)


def class_of(hint: Any) -> type[Any] | None:
    """Return the class that `hint` is, or is a generic form of; None for any other hint."""
    class_ = get_origin(hint) or hint
    return class_ if isinstance(class_, type) and class_ is not types.UnionType else None


def name_of_hint(hint: Any) -> str:
    """Return the name of a hint, for messages."""
    return getattr(hint, "__name__", None) or str(hint)


def resolve_alias(hint: Any) -> Any:
    """Return the target of a `NewType`, or of an alias made by ``type`` or ``TypeAliasType``.

    Any other hint is returned unchanged.
    """
    if isinstance(hint, NewType):
        return hint.__supertype__
    alias = get_origin(hint) or hint
    # The class is in `typing` since Python 3.12, and in `typing_extensions` for older versions.
    if type(alias).__name__ != "TypeAliasType":
        return hint
    value = alias.__value__
    return value[get_args(hint)] if get_args(hint) else value


def key_of_hint(hint: Any) -> Hashable:
    """Return a hashable key for a hint: its text if it has annotations that are not hashable."""
    try:
        hash(hint)
    except TypeError:
        return repr(hint)
    return cast("Hashable", hint)
