"""Random types with their values, and random changes of them."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import types
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, Union
from uuid import UUID

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

FIELD_NAMES = ("a", "b", "c")
KINDS = (
    *("dataclass", "attrs", "Struct", "omit_defaults", "closed", "array"),
    *("TypedDict", "NamedTuple", "pydantic"),
)
PRESENCES = ("required", "default", "factory")

_LETTERS = "ab1é"
_LONGEST = 4


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


# Values without parts

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
    "any": (Any, st.none() | st.integers(0, 9) | st.text(_LETTERS, max_size=_LONGEST)),
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
_bounds: SearchStrategy[Bounds] = st.one_of(
    st.tuples(_bound, st.none()),
    st.tuples(st.none(), _bound),
    st.tuples(st.integers(0, 2), st.integers(2, 3)),
)


def _limited(hint: Any, limits: dict[str, Any]) -> Any:
    """Return a hint with limits for both msgspec and pydantic."""
    return Annotated[hint, msgspec.Meta(**limits), pydantic.Field(**limits)]


@attrs.frozen
class Number(Shape):
    bounds: Bounds

    @property
    def hint(self) -> Any:
        return _limited(int, {"ge": self.bounds[0], "le": self.bounds[1]})

    @property
    def values(self) -> SearchStrategy[Any]:
        least, most = self.bounds
        return st.integers(-9 if least is None else least, 9 if most is None else most)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, st.builds(Number, _bounds))


@attrs.frozen
class Text(Shape):
    lengths: Bounds
    pattern: str | None = None

    @property
    def hint(self) -> Any:
        shortest, longest = self.lengths
        limits = {"min_length": shortest, "max_length": longest, "pattern": self.pattern}
        return _limited(str, limits)

    @property
    def values(self) -> SearchStrategy[Any]:
        letters = _LETTERS if self.pattern is None else "a1"
        shortest, longest = self.lengths
        return st.text(
            letters, min_size=shortest or 0, max_size=_LONGEST if longest is None else longest
        )

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, _texts)


@attrs.frozen
class Bytes(Shape):
    lengths: Bounds

    @property
    def hint(self) -> Any:
        return _limited(bytes, {"min_length": self.lengths[0], "max_length": self.lengths[1]})

    @property
    def values(self) -> SearchStrategy[Any]:
        shortest, longest = self.lengths
        return st.binary(min_size=shortest or 0, max_size=_LONGEST if longest is None else longest)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, st.builds(Bytes, _bounds))

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
        yield from (shapes, _flags, st.just(Bits((*self.bits, 8), self.boundary)))


# The same shape is always the same class.
@functools.lru_cache(maxsize=1000)
def enum_of(name: str, values: tuple[Any, ...]) -> Any:
    return enum.Enum(name, {f"N{number}": value for number, value in enumerate(values)})


@functools.lru_cache(maxsize=1000)
def flag_of(bits: tuple[int, ...], boundary: enum.FlagBoundary) -> Any:
    return enum.Flag("Bits", {f"N{bit}": bit for bit in bits}, boundary=boundary)


# Values with parts


@attrs.frozen
class Items(Shape):
    collection: type[Any]
    item: Shape
    lengths: Bounds

    @property
    def hint(self) -> Any:
        limits = {"min_length": self.lengths[0], "max_length": self.lengths[1]}
        return _limited(self.collection[self.item.hint], limits)

    @property
    def values(self) -> SearchStrategy[Any]:
        shortest, longest = self.lengths
        lists = st.lists(
            self.item.values,
            min_size=shortest or 0,
            max_size=_LONGEST if longest is None else longest,
            unique=self.collection is set,
        )
        return lists.map(self.collection)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield shapes
        if self.collection is set:
            yield _sets
        else:
            yield changed(self.item).map(lambda item: attrs.evolve(self, item=item))
            yield _bounds.map(lambda lengths: attrs.evolve(self, lengths=lengths))

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
        yield from (one.map(Tuple) for one in _with_one_changed(self.items))

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
        yield from (shapes, _keys.map(lambda key: Map(key, self.value)))
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
        yield from (one.map(OneOf) for one in _with_one_changed(self.options))

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


def _with_one_changed(parts: tuple[Shape, ...]) -> Iterator[SearchStrategy[tuple[Shape, ...]]]:
    for number, part in enumerate(parts):
        before, after = parts[:number], parts[number + 1 :]
        yield changed(part).map(functools.partial(_between, before, after))


def _between(before: tuple[Any, ...], after: tuple[Any, ...], part: Any) -> tuple[Any, ...]:
    return (*before, part, *after)


# Classes


@attrs.frozen
class Field:
    name: str
    shape: Shape
    presence: str

    @property
    def has_default(self) -> bool:
        return self.presence != "required"

    @property
    def hint(self) -> Any:
        return Union[self.shape.hint, None] if self.has_default else self.shape.hint  # noqa: UP007

    def changes(self) -> Iterator[SearchStrategy[Field]]:
        yield changed(self.shape).map(lambda shape: attrs.evolve(self, shape=shape))
        yield st.sampled_from(PRESENCES).map(lambda one: attrs.evolve(self, presence=one))

    def made_by(self, make: Any, *, factory: str = "default_factory") -> Any:
        """Return the default as a library declares it, with its own function for fields."""
        return make(**{factory: _none}) if self.presence == "factory" else make(default=None)


def _none() -> None:
    return None


@attrs.frozen
class Class(Shape):
    kind: str
    fields: tuple[Field, ...]

    @property
    def hint(self) -> Any:
        return _class_of(self)

    @property
    def values(self) -> SearchStrategy[Any]:
        fields = self.fields_within
        return st.fixed_dictionaries(
            {field.name: field.shape.values for field in fields if not field.has_default},
            optional={field.name: field.shape.values for field in fields if field.has_default},
        ).map(lambda given: self.hint(**given))

    @property
    def fields_within(self) -> tuple[Field, ...]:
        if self.kind != "pydantic":
            return self.fields
        return tuple(attrs.evolve(one, shape=one.shape.in_model()) for one in self.fields)

    def changes(self) -> Iterator[SearchStrategy[Shape]]:
        yield from (shapes, st.sampled_from(KINDS).map(lambda kind: Class(kind, self.fields)))
        yield st.just(Class(self.kind, self.fields[1:]))
        yield _fields.map(lambda more: Class(self.kind, _unique((*self.fields, *more))))
        for number, field in enumerate(self.fields):
            before, after = self.fields[:number], self.fields[number + 1 :]
            for one in field.changes():
                parts = one.map(functools.partial(_between, before, after))
                yield parts.map(functools.partial(Class, self.kind))

    def in_model(self) -> Shape:
        return Class("pydantic", self.fields)


def _unique(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple({field.name: field for field in reversed(tuple(fields))}.values())[::-1]


@functools.lru_cache(maxsize=1000)
def _class_of(class_: Class) -> Any:
    return _MAKERS[class_.kind](class_.fields_within)


def _dataclass(fields: Iterable[Field]) -> Any:
    made = [
        (one.name, one.hint, one.made_by(dataclasses.field))
        if one.has_default
        else (one.name, one.hint)
        for one in fields
    ]
    return dataclasses.make_dataclass("Shape", made, kw_only=True)


def _attrs_class(fields: Iterable[Field]) -> Any:
    def field_of(one: Field) -> Any:
        make = functools.partial(attrs.field, type=one.hint, kw_only=True)
        return one.made_by(make, factory="factory") if one.has_default else make()

    return attrs.make_class("Shape", {one.name: field_of(one) for one in fields})


def _struct(fields: Iterable[Field], **config: Any) -> Any:
    made = [
        (one.name, one.hint, one.made_by(msgspec.field))
        if one.has_default
        else (one.name, one.hint)
        for one in fields
    ]
    return msgspec.defstruct("Shape", made, kw_only=True, **config)


def _typed_dict(fields: Iterable[Field]) -> Any:
    hints = {one.name: NotRequired[one.hint] if one.has_default else one.hint for one in fields}
    make: Any = TypedDict
    return make("Shape", hints)


def _named_tuple(fields: Iterable[Field]) -> Any:
    ordered = sorted(fields, key=lambda one: one.has_default)
    members: dict[str, Any] = {"__module__": __name__}
    members |= {one.name: None for one in ordered if one.has_default}
    members["__annotations__"] = {one.name: one.hint for one in ordered}
    base: Any = NamedTuple
    return types.new_class("Shape", (base,), exec_body=lambda made: made.update(members))


def _model(fields: Iterable[Field]) -> Any:
    made: dict[str, Any] = {
        one.name: (one.hint, one.made_by(pydantic.Field) if one.has_default else ...)
        for one in fields
    }
    return pydantic.create_model("Shape", **made)


_MAKERS: dict[str, Any] = {
    "dataclass": _dataclass,
    "attrs": _attrs_class,
    "Struct": _struct,
    "omit_defaults": functools.partial(_struct, omit_defaults=True),
    "closed": functools.partial(_struct, forbid_unknown_fields=True),
    "array": functools.partial(_struct, array_like=True),
    "TypedDict": _typed_dict,
    "NamedTuple": _named_tuple,
    "pydantic": _model,
}


# All of them

_plains = st.sampled_from(sorted(_PLAIN)).map(Plain)
_numbers = st.builds(Number, _bounds)
_texts = st.builds(Text, _bounds, st.sampled_from([None, "^[a1]*$"]))
_listed = st.lists(st.sampled_from(["red", "blue", "1", ""]), min_size=1, unique=True) | st.lists(
    st.integers(0, 4), min_size=1, unique=True
)
_choices = st.builds(Choice, _listed.map(tuple), st.booleans())
_flags = st.builds(
    Bits,
    st.lists(st.sampled_from([1, 2, 4]), min_size=1, unique=True).map(tuple),
    st.sampled_from([enum.STRICT, enum.KEEP]),
)
_keys = st.one_of(_numbers, _texts, _choices, st.just(Plain("uuid")))
_sets = st.builds(
    Items, st.just(set), _keys, st.tuples(st.just(None), st.none() | st.integers(1, 3))
)


def _fields_of(children: SearchStrategy[Shape]) -> SearchStrategy[tuple[Field, ...]]:
    field = st.builds(Field, st.sampled_from(FIELD_NAMES), children, st.sampled_from(PRESENCES))
    return st.lists(field, max_size=3, unique_by=operator.attrgetter("name")).map(tuple)


def _containers(children: SearchStrategy[Shape]) -> SearchStrategy[Shape]:
    return st.one_of(
        st.builds(Items, st.just(list), children, _bounds),
        _sets,
        st.builds(Tuple, st.lists(children, min_size=1, max_size=2).map(tuple)),
        st.builds(Map, _keys, children),
        st.builds(OneOf, st.lists(children, min_size=1, max_size=3).map(tuple)),
        st.builds(Class, st.sampled_from(KINDS), _fields_of(children)),
    )


_simple = st.one_of(_plains, _numbers, _texts, st.builds(Bytes, _bounds), _choices, _flags)
shapes: SearchStrategy[Shape] = st.recursive(_simple, _containers, max_leaves=4)
_fields = _fields_of(shapes)
