"""`Shape`: a random type with its values, and random changes of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


class Shape:
    """A type of values."""

    @property
    def hint(self) -> Any:
        """The type hint."""
        raise NotImplementedError

    @property
    def values(self) -> SearchStrategy[Any]:
        """Values of the type."""
        raise NotImplementedError

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        """Yield shapes that differ from this one in one place."""
        yield shapes

    def in_model(self) -> Shape:
        """Return the shape that a field of a model of pydantic has in the place of this one."""
        return self


def changed(shape: Shape) -> SearchStrategy[Shape]:
    """Return shapes that differ from `shape` in one place."""
    return st.one_of(*shape.changes())


def _all_shapes() -> SearchStrategy[Shape]:
    from core.schema.random_shapes import all_shapes  # noqa: PLC0415 - it imports this module

    return all_shapes


shapes: SearchStrategy[Shape] = st.deferred(_all_shapes)


def with_one_changed(parts: tuple[Shape, ...]) -> Iterator[SearchStrategy[tuple[Shape, ...]]]:
    for number, part in enumerate(parts):
        before, after = parts[:number], parts[number + 1 :]
        yield changed(part).map(functools.partial(between, before, after))


def between(before: tuple[Any, ...], after: tuple[Any, ...], part: Any) -> tuple[Any, ...]:
    return (*before, part, *after)
