"""Shapes of classes with fields."""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, NotRequired, TypedDict, Union

import attrs
import msgspec
import pydantic
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from core.schema.shapes import Shape, between, changed, shapes

FIELD_NAMES = ("a", "b", "c")


KINDS = (
    *("dataclass", "attrs", "Struct", "omit_defaults", "closed", "array"),
    *("TypedDict", "NamedTuple", "pydantic"),
)


PRESENCES = ("required", "default", "factory")


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
                parts = one.map(functools.partial(between, before, after))
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


def fields_of(children: SearchStrategy[Shape]) -> SearchStrategy[tuple[Field, ...]]:
    field = st.builds(Field, st.sampled_from(FIELD_NAMES), children, st.sampled_from(PRESENCES))
    return st.lists(field, max_size=3, unique_by=operator.attrgetter("name")).map(tuple)


_fields = fields_of(shapes)
