"""Shapes of collections, and of unions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Union

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from core.schema.scalar_shapes import LONGEST, Bounds, Plain, bounds, keys, limited
from core.schema.shapes import Shape, changed, shapes, with_one_changed


@attrs.frozen
class Items(Shape):
    collection: type[Any]
    item: Shape
    lengths: Bounds

    @property
    def hint(self) -> Any:
        limits = {"min_length": self.lengths[0], "max_length": self.lengths[1]}
        return limited(self.collection[self.item.hint], limits)

    @property
    def values(self) -> SearchStrategy[Any]:
        shortest, longest = self.lengths
        lists = st.lists(
            self.item.values,
            min_size=shortest or 0,
            max_size=LONGEST if longest is None else longest,
            unique=self.collection is set,
        )
        return lists.map(self.collection)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield shapes
        if self.collection is set:
            yield sets
        else:
            yield changed(self.item).map(lambda item: attrs.evolve(self, item=item))
            yield bounds.map(lambda lengths: attrs.evolve(self, lengths=lengths))

    def in_model(self) -> Shape:
        return attrs.evolve(self, item=self.item.in_model())


@attrs.frozen
class Tuple(Shape):
    items: tuple[Shape, ...]

    @property
    def hint(self) -> Any:
        of: Any = tuple
        return of[tuple(item.hint for item in self.items)]

    @property
    def values(self) -> SearchStrategy[Any]:
        return st.tuples(*(item.values for item in self.items))

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, shapes.map(lambda item: Tuple((*self.items, item))))
        yield from (one.map(Tuple) for one in with_one_changed(self.items))

    def in_model(self) -> Shape:
        return Tuple(tuple(item.in_model() for item in self.items))


@attrs.frozen
class Map(Shape):
    key: Shape
    value: Shape

    @property
    def hint(self) -> Any:
        of: Any = dict
        return of[self.key.hint, self.value.hint]

    @property
    def values(self) -> SearchStrategy[Any]:
        return st.dictionaries(self.key.values, self.value.values, max_size=2)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, keys.map(lambda key: Map(key, self.value)))
        yield changed(self.value).map(lambda value: Map(self.key, value))

    def in_model(self) -> Shape:
        return Map(self.key, self.value.in_model())


@attrs.frozen
class OneOf(Shape):
    options: tuple[Shape, ...]

    @property
    def hint(self) -> Any:
        return Union[*(option.hint for option in self.distinct)]

    @property
    def values(self) -> SearchStrategy[Any]:
        return st.one_of(*(option.values for option in self.distinct))

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, shapes.map(lambda option: OneOf((*self.options, option))))
        yield st.sampled_from(self.options)
        yield from (one.map(OneOf) for one in with_one_changed(self.options))

    def in_model(self) -> Shape:
        return OneOf(tuple(option.in_model() for option in self.options))

    @property
    def distinct(self) -> list[Shape]:
        # msgspec merges the limits of two numbers or two strings. msgspec 0.23.0 corrupts memory
        # where a union has a tuple and a string with limits.
        kept: dict[type[Shape], Shape] = {}
        for option in self.options:
            for one in option.distinct if isinstance(option, OneOf) else [option]:
                kept.setdefault(type(one), one)
        kept.pop(Tuple, None)
        return list(kept.values()) or [Plain("none")]


sets = st.builds(Items, st.just(set), keys, st.tuples(st.just(None), st.none() | st.integers(1, 3)))
