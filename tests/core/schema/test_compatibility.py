"""Which changes of events break a listener."""

from __future__ import annotations

import copy
import dataclasses
import time as time_module
from datetime import datetime, time
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest

from core.schema.examples import NARROWER, WIDER, House, Street, api, changes
from lightbus import Api, Event, WildcardParameter
from lightbus.encoding.native_types import parameters_type
from lightbus.schema.events import breaking_changes, schema_of


@dataclasses.dataclass
class Pair:
    x: int
    y: int = 0


@dataclasses.dataclass
class PairOfText:
    x: str
    y: int = 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"x": int}, {"x": int}),
        ({"x": int}, {"x": int, "y": (int, 3)}),
        ({"x": int}, {"x": (int, 3)}),
        ({"x": Street}, {"x": Street}),
        ({"x": House}, {"x": House}),
        ({"x": int | None}, {"x": None | int}),
        ({"x": Any}, {"x": Any}),
        ({}, {}),
    ],
    ids=str,
)
def test_a_compatible_change_is_not_reported(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert changes(before, after) == []


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"x": int}, {}, ["x: it was removed"]),
        ({}, {"x": int}, ["x: it is new and required"]),
        ({"x": (int, 3)}, {"x": int}, ["x: it was optional and is now required"]),
        ({"x": int}, {"x": float}, [f"x: {WIDER}at $, number instead of integer"]),
        ({"x": float}, {"x": int}, [f"x: {NARROWER}at $, number instead of integer"]),
        (
            {"x": int},
            {"x": str},
            [
                f"x: {WIDER}at $, string instead of integer",
                f"x: {NARROWER}at $, integer instead of string",
            ],
        ),
        ({"x": str}, {"x": datetime}, [f"x: {NARROWER}at $, format none instead of date-time"]),
        (
            {"x": Literal["a", "b"]},
            {"x": Literal["a"]},
            [f"x: {NARROWER}at $, 'b' instead of 'a'"],
        ),
        ({"x": str}, {"x": Literal["a"]}, [f"x: {NARROWER}at $, string instead of 'a'"]),
        ({"x": int}, {"x": (int | None, 1)}, [f"x: {WIDER}at $, null instead of integer"]),
        ({"x": list[int]}, {"x": list[float]}, [f"x: {WIDER}at $[...], number instead of integer"]),
        (
            {"x": dict[str, float]},
            {"x": dict[str, int]},
            [f"x: {NARROWER}at $[...], number instead of integer"],
        ),
        ({"x": Any}, {"x": int}, [f"x: {NARROWER}at $, anything instead of integer"]),
        (
            {"x": Pair},
            {"x": PairOfText},
            [
                f"x: {WIDER}at $.x, string instead of integer",
                f"x: {NARROWER}at $.x, integer instead of string",
            ],
        ),
    ],
    ids=str,
)
def test_a_breaking_change_is_reported_with_its_place(
    before: dict[str, Any], after: dict[str, Any], found: list[str]
) -> None:
    assert changes(before, after) == found


def test_a_removed_event_is_reported() -> None:
    (change,) = breaking_changes(schema_of([api(x=int)]), schema_of([]))
    assert (change.event, change.field, change.difference) == ("a.e", "", "it was removed")
    assert "no longer receive" in change.consequence


@dataclasses.dataclass
class Dated:
    at: datetime
    by: time | None = None


@dataclasses.dataclass
class DatedText:
    at: str
    by: str | None = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


class TallDog(Dog):
    height: int


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


LaterPet = Annotated[Cat | TallDog, pydantic.Field(discriminator="kind")]


class Owner(pydantic.BaseModel):
    pet: Pet


class LaterOwner(pydantic.BaseModel):
    pet: LaterPet


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


@dataclasses.dataclass
class WithDefault:
    x: int = 0


@dataclasses.dataclass
class WithoutDefault:
    x: int


A_OR_NONE: Any = Literal["a", None]  # noqa: PYI061


@pytest.mark.parametrize(
    ("before", "after", "directions"),
    [
        (Dated, DatedText, [WIDER]),
        (DatedText, Dated, [NARROWER]),
        (str, time, [NARROWER]),
        (Owner, LaterOwner, [NARROWER]),
        (dict[str, int], Closed, [NARROWER]),
        (dict[str, str], WithDefault, [WIDER, NARROWER]),
        (tuple[str, int], list[int], [WIDER, NARROWER]),
        (WithDefault, WithoutDefault, [NARROWER]),
        (WithoutDefault, WithDefault, []),
        (Literal["a"] | None, A_OR_NONE, []),
        (A_OR_NONE, Literal["a"] | None, []),
        (list[int], tuple[int, int], [NARROWER]),
    ],
    ids=str,
)
def test_changes_within_types_are_found(before: Any, after: Any, directions: list[str]) -> None:
    found = changes({"x": before}, {"x": after})
    assert [next(d for d in (WIDER, NARROWER) if d in change) for change in found] == directions


def test_an_event_that_no_longer_accepts_other_fields_is_reported() -> None:
    class Before(Api):
        e = Event(("x", WildcardParameter()))

        class Meta:
            name = "a"

    (change,) = breaking_changes(schema_of([Before]), schema_of([api(x=Any)]))
    assert (change.field, change.difference) == ("", "it no longer accepts other fields")


def test_types_that_refer_to_each_other_are_compared_quickly() -> None:
    names = [f"T{number}" for number in range(12)]
    fields = {
        name.lower(): {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]} for name in names
    }
    definitions = {name: {"type": "object", "title": name, "properties": fields} for name in names}
    events = {"a.e": {"type": "object", "properties": {"x": {"$ref": "#/$defs/T0"}}}}
    schema = {"properties": events, "$defs": definitions}
    began = time_module.process_time()
    assert list(breaking_changes(schema, copy.deepcopy(schema))) == []
    assert time_module.process_time() - began < 2


# Fields of classes


# Listed values


@pytest.mark.parametrize(
    "note",
    [
        {"x-owner": "team"},
        {"example": 1},
        {"examples": [1]},
        {"readOnly": True},
        {"writeOnly": True},
        {"deprecated": True},
        {"$comment": "why"},
        {"description": "what"},
        {"format": "int64"},
        {"format": "phone"},
    ],
    ids=str,
)
def test_an_annotation_is_not_a_change(note: dict[str, Any]) -> None:
    text_or_number: Any = str if note.get("format") == "phone" else int
    noted: Any = Annotated[text_or_number, msgspec.Meta(extra_json_schema=note)]
    models = [
        pydantic.create_model("P", a=(text_or_number, pydantic.Field(json_schema_extra=extra)))
        for extra in ({}, note)
    ]
    assert changes({"x": text_or_number}, {"x": noted}) == []
    assert changes({"x": noted}, {"x": text_or_number}) == []
    assert changes({"x": models[0]}, {"x": models[1]}) == []
    assert changes({"x": models[1]}, {"x": models[0]}) == []


def test_fields_with_the_names_of_keywords_are_compared() -> None:
    names = ["items", "prefixItems", "properties", "anyOf", "x-owner", "default", "required"]
    before = parameters_type(dict.fromkeys(names, int))
    after = parameters_type({**dict.fromkeys(names, int), "items": str})

    assert changes({"x": before}, {"x": before}) == []
    assert len(changes({"x": before}, {"x": after})) == 2
