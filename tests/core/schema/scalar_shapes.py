"""Shapes of values without parts."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from core.schema.shapes import Shape, shapes

_LETTERS = "ab1é"


LONGEST = 4


_PLAIN: dict[str, tuple[Any, SearchStrategy[Any]]] = {
    "bool": (bool, st.booleans()),
    "float": (float, st.floats(-1e6, 1e6)),
    "none": (None, st.none()),
    "date": (date, st.dates()),
    "datetime": (datetime, st.datetimes(timezones=st.sampled_from([None, UTC]))),
    "aware": (Annotated[datetime, msgspec.Meta(tz=True)], st.datetimes(timezones=st.just(UTC))),
    "naive": (Annotated[datetime, msgspec.Meta(tz=False)], st.datetimes()),
    "time": (time, st.times()),
    "timedelta": (timedelta, st.timedeltas(timedelta(0), timedelta(days=300))),
    "uuid": (UUID, st.uuids()),
    "decimal": (Decimal, st.decimals(-1000, 1000, places=2)),
    "any": (Any, st.none() | st.integers(0, 9) | st.text(_LETTERS, max_size=LONGEST)),
}


@attrs.frozen
class Plain(Shape):
    name: str

    @property
    def hint(self) -> Any:
        return _PLAIN[self.name][0]

    @property
    def values(self) -> SearchStrategy[Any]:
        return _PLAIN[self.name][1]

    def in_model(self) -> Shape:
        # The types that pydantic has for these are others.
        return Plain("datetime") if self.name in ("aware", "naive") else self


Bounds = tuple[int | None, int | None]


_bound = st.none() | st.integers(0, 3)


bounds: SearchStrategy[Bounds] = st.one_of(
    st.tuples(_bound, st.none()),
    st.tuples(st.none(), _bound),
    st.tuples(st.integers(0, 2), st.integers(2, 3)),
)


def limited(hint: Any, limits: dict[str, Any]) -> Any:
    """Return a hint with limits for both msgspec and pydantic."""
    return Annotated[hint, msgspec.Meta(**limits), pydantic.Field(**limits)]


@attrs.frozen
class Number(Shape):
    bounds: Bounds

    @property
    def hint(self) -> Any:
        return limited(int, {"ge": self.bounds[0], "le": self.bounds[1]})

    @property
    def values(self) -> SearchStrategy[Any]:
        least, most = self.bounds
        return st.integers(-9 if least is None else least, 9 if most is None else most)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, st.builds(Number, bounds))


@attrs.frozen
class Text(Shape):
    lengths: Bounds
    pattern: str | None = None

    @property
    def hint(self) -> Any:
        shortest, longest = self.lengths
        limits = {"min_length": shortest, "max_length": longest, "pattern": self.pattern}
        return limited(str, limits)

    @property
    def values(self) -> SearchStrategy[Any]:
        letters = _LETTERS if self.pattern is None else "a1"
        shortest, longest = self.lengths
        return st.text(
            letters, min_size=shortest or 0, max_size=LONGEST if longest is None else longest
        )

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, texts)


@attrs.frozen
class Bytes(Shape):
    lengths: Bounds

    @property
    def hint(self) -> Any:
        return limited(bytes, {"min_length": self.lengths[0], "max_length": self.lengths[1]})

    @property
    def values(self) -> SearchStrategy[Any]:
        shortest, longest = self.lengths
        return st.binary(min_size=shortest or 0, max_size=LONGEST if longest is None else longest)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, st.builds(Bytes, bounds))

    def in_model(self) -> Shape:
        # Pydantic writes bytes as text, which not all bytes are.
        return Plain("date")


@attrs.frozen
class Choice(Shape):
    listed: tuple[Any, ...]
    is_enum: bool

    @property
    def hint(self) -> Any:
        if not self.is_enum:
            return Literal[self.listed]
        return enum_of("Choice", self.listed)

    @property
    def values(self) -> SearchStrategy[Any]:
        return st.sampled_from(list(self.hint) if self.is_enum else self.listed)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        more = "new" if isinstance(self.listed[0], str) else 99
        yield from (
            shapes,
            st.just(Choice(self.listed, not self.is_enum)),
            st.just(Choice((*self.listed, more), self.is_enum)),
            st.just(Choice(self.listed[:1], self.is_enum)),
        )


@attrs.frozen
class Bits(Shape):
    bits: tuple[int, ...]
    boundary: enum.FlagBoundary

    @property
    def hint(self) -> Any:
        return flag_of(self.bits, self.boundary)

    @property
    def values(self) -> SearchStrategy[Any]:
        combined = st.sets(st.sampled_from(self.bits)).map(sum)
        return combined.map(self.hint)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, flags, st.just(Bits((*self.bits, 8), self.boundary)))


# The same shape is always the same class.
@functools.lru_cache(maxsize=1000)
def enum_of(name: str, values: tuple[Any, ...]) -> Any:
    return enum.Enum(name, {f"N{number}": value for number, value in enumerate(values)})


@functools.lru_cache(maxsize=1000)
def flag_of(bits: tuple[int, ...], boundary: enum.FlagBoundary) -> Any:
    return enum.Flag("Bits", {f"N{bit}": bit for bit in bits}, boundary=boundary)


plains = st.sampled_from(sorted(_PLAIN)).map(Plain)


numbers = st.builds(Number, bounds)


texts = st.builds(Text, bounds, st.sampled_from([None, "^[a1]*$"]))


_listed = st.lists(st.sampled_from(["red", "blue", "1", ""]), min_size=1, unique=True) | st.lists(
    st.integers(0, 4), min_size=1, unique=True
)


choices = st.builds(Choice, _listed.map(tuple), st.booleans())


flags = st.builds(
    Bits,
    st.lists(st.sampled_from([1, 2, 4]), min_size=1, unique=True).map(tuple),
    st.sampled_from([enum.STRICT, enum.KEEP]),
)


keys = st.one_of(numbers, texts, choices, st.just(Plain("uuid")))
