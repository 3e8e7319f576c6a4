"""Type hints: their parts, and whether they admit None."""

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


def mapped(
    hint: Any, change: Callable[[Any], Any], *, is_whole: Callable[[Any], bool] = lambda _: False
) -> Any:
    """Return `hint` with each of its types replaced by the result of `change`.

    Args:
        hint: A type hint.
        change: Given a type, returns it or another.
        is_whole: Given the origin of a generic type, returns whether to leave its arguments alone.

    Raises:
        Exception: It is no type.
    """
    changed = change(hint)
    inner = functools.partial(mapped, change=change, is_whole=is_whole)
    if (meaning := meaning_of(hint)) is not hint:
        alike = inner(meaning)
        return hint if alike is meaning else alike
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


def optional(hint: Any) -> Any:
    """Return `hint` or None as a type; Any if `hint` is not a type."""
    try:
        return Optional[hint]  # noqa: UP045 - no literal
    except TypeError:
        return Any


def admits_none(hint: Any) -> bool:
    """Return whether `hint` admits None."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return admits_none(args[0])
    if (meaning := meaning_of(hint)) is not hint:
        return admits_none(meaning)
    if origin in (Union, types.UnionType):
        return any(map(admits_none, args))
    return hint in (None, type(None)) or (origin is Literal and None in args)


def is_wrongly_none(hint: Any, default: Any) -> bool:
    """Return whether None is the default of a field whose hint does not say so."""
    is_any = hint is Any or isinstance(hint, TypeVar)
    return default is None and not is_any and not admits_none(hint)


def class_of(hint: Any) -> type[Any] | None:
    """Return the class that `hint` is, or is a generic form of; None where it is another hint."""
    class_ = get_origin(hint) or hint
    return class_ if isinstance(class_, type) and class_ is not types.UnionType else None


def name_of_hint(hint: Any) -> str:
    """Return the name of a hint for people."""
    return getattr(hint, "__name__", None) or str(hint)


def meaning_of(hint: Any) -> Any:
    """Return the hint behind a `NewType`, or behind an alias made by ``type`` or ``TypeAliasType``;
    any other hint itself.
    """
    if isinstance(hint, NewType):
        return hint.__supertype__
    alias = get_origin(hint) or hint
    # A class of `typing` from Python 3.12 on, and of `typing_extensions` before
    if type(alias).__name__ != "TypeAliasType":
        return hint
    value = alias.__value__
    return value[get_args(hint)] if get_args(hint) else value


def key_of_hint(hint: Any) -> Hashable:
    """Return a hashable key for a hint: its text if annotations in it cannot be hashed."""
    try:
        hash(hint)
    except TypeError:
        return repr(hint)
    return cast("Hashable", hint)
