"""Which changes of events break a listener."""

from __future__ import annotations

import copy
import dataclasses
import enum
import time as time_module
from collections.abc import Callable
from dataclasses import field
from datetime import datetime, time
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from core.schema.examples import NARROWER, WIDER, Colour, House, Street, api, changes, make
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
def test_a_change_that_listeners_survive_is_none(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
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
def test_a_change_that_breaks_a_listener_is_told_with_its_place(
    before: dict[str, Any], after: dict[str, Any], found: list[str]
) -> None:
    assert changes(before, after) == found


def test_an_event_that_is_gone_is_told() -> None:
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


def test_an_event_that_admits_no_further_fields_any_more_is_told() -> None:
    class Before(Api):
        e = Event(("x", WildcardParameter()))

        class Meta:
            name = "a"

    (change,) = breaking_changes(schema_of([Before]), schema_of([api(x=Any)]))
    assert (change.field, change.difference) == ("", "it no longer accepts other fields")


def test_types_that_refer_to_each_other_are_compared_in_no_time() -> None:
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

PLACE = make("Place", [("street", str), ("city", str)])


STREET = make("Place", [("street", str)])


class Named(TypedDict):
    street: str
    city: str


class OnlyStreetNamed(TypedDict):
    street: str


class PerhapsCityNamed(TypedDict):
    street: str
    city: NotRequired[str]


class InModel(pydantic.BaseModel):
    street: str
    city: str


class OnlyStreetInModel(pydantic.BaseModel):
    street: str


class InStruct(msgspec.Struct):
    street: str
    city: str


@attrs.define
class InAttrs:
    street: str
    city: str


@attrs.define
class OnlyStreetInAttrs:
    street: str


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PLACE, STREET),
        (PLACE, make("Place", [("street", str), ("town", str)])),
        (PLACE, make("Place", [("other", int, 3)])),
        (PLACE, dict[str, Any]),
        (PLACE, dict[str, str]),
        (InModel, OnlyStreetInModel),
        (InStruct, msgspec.defstruct("InStruct", [("street", str)])),
        (InAttrs, OnlyStreetInAttrs),
        (Named, OnlyStreetNamed),
        (Named, PerhapsCityNamed),
        (
            InStruct,
            msgspec.defstruct("InStruct", [("street", str), ("city", str, "")], omit_defaults=True),
        ),
        (
            InStruct,
            msgspec.defstruct(
                "InStruct", [("street", str), ("city", str | msgspec.UnsetType, msgspec.UNSET)]
            ),
        ),
    ],
    ids=lambda type_: getattr(type_, "__name__", str(type_)),
)
@pytest.mark.parametrize(
    "within",
    [
        lambda type_: type_,
        list.__class_getitem__,
        lambda type_: dict.__class_getitem__((str, type_)),
        Optional.__getitem__,
        lambda type_: tuple.__class_getitem__((int, type_)),
        lambda type_: make("Outer", [("of", list.__class_getitem__(type_))]),
    ],
    ids=["itself", "list", "dict", "union", "tuple", "dataclass"],
)
def test_a_field_that_may_be_missing_and_was_required_is_found_at_any_depth(
    before: Any, after: Any, within: Callable[[Any], Any]
) -> None:
    found = changes({"x": within(before)}, {"x": within(after)})

    assert any(WIDER in change and "it may be missing" in change for change in found)


def tags() -> list[str]:
    return ["new"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (STREET, make("Place", [("street", str, "High Street")])),
        (
            make("T", [("tags", list[str])]),
            make("T", [("tags", list[str], field(default_factory=tags))]),
        ),
        (STREET, pydantic.create_model("Place", street=(str, "High Street"))),
        (
            make("T", [("tags", list[str])]),
            pydantic.create_model("T", tags=(list[str], pydantic.Field(default_factory=tags))),
        ),
        (STREET, msgspec.defstruct("Place", [("street", str, "High Street")])),
        (STREET, attrs.make_class("Place", {"street": attrs.field(type=str, default="")})),
    ],
)
def test_a_field_that_got_a_default_is_not_missing_for_it_is_always_sent(
    before: Any, after: Any
) -> None:
    assert changes({"x": before}, {"x": after}) == []
    assert changes({"x": list[before]}, {"x": list[after]}) == []


# Listed values


class Code(enum.Enum):
    LOW = 1
    HIGH = 9


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Annotated[int, msgspec.Meta(ge=1)], Literal[1, 2]),
        (Annotated[int, msgspec.Meta(gt=0, lt=10)], Code),
        (Annotated[int, msgspec.Meta(multiple_of=3)], Literal[3, 9]),
        (Annotated[str, msgspec.Meta(min_length=2, max_length=3)], Literal["ab", "abc"]),
        (Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Literal["ab"]),
        (Annotated[float, msgspec.Meta(le=9)], Code),
    ],
)
def test_listed_values_are_held_against_the_bounds_of_the_other_side(
    outer: Any, inner: Any
) -> None:
    assert WIDER not in "".join(changes({"x": outer}, {"x": inner}))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Annotated[int, msgspec.Meta(ge=1)], Literal[0, 1]),
        (Annotated[int, msgspec.Meta(lt=9)], Code),
        (Annotated[int, msgspec.Meta(gt=1)], Code),
        (Annotated[int, msgspec.Meta(multiple_of=3)], Code),
        (Annotated[str, msgspec.Meta(min_length=2)], Literal["a"]),
        (Annotated[str, msgspec.Meta(max_length=2)], Literal["abc"]),
        (Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Literal["ab", "A"]),
        (datetime, Literal["today"]),
        (bytes, Literal["?"]),
        (dict[Annotated[str, msgspec.Meta(max_length=2)], int], dict[Literal["abc"], int]),
    ],
)
def test_listed_values_that_pass_the_bounds_of_the_other_side_are_found(
    outer: Any, inner: Any
) -> None:
    assert WIDER in "".join(changes({"x": outer}, {"x": inner}))


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
def test_an_annotation_is_no_change(note: dict[str, Any]) -> None:
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


class May(enum.Flag):
    READ = 1
    WRITE = 4


class MayRun(enum.Flag):
    READ = 1
    RUN = 2
    WRITE = 4


def test_a_flag_that_gets_or_loses_a_member_has_changed() -> None:
    assert [WIDER in change for change in changes({"x": May}, {"x": MayRun})] == [True]
    assert [NARROWER in change for change in changes({"x": MayRun}, {"x": May})] == [True]


def test_fields_that_are_named_like_keywords_are_fields() -> None:
    names = ["items", "prefixItems", "properties", "anyOf", "x-owner", "default", "required"]
    before = parameters_type(dict.fromkeys(names, int))
    after = parameters_type({**dict.fromkeys(names, int), "items": str})

    assert changes({"x": before}, {"x": before}) == []
    assert len(changes({"x": before}, {"x": after})) == 2


@pytest.mark.parametrize(
    ("before", "after", "directions"),
    [
        (dict[int, int], dict[str, int], [WIDER]),
        (dict[str, int], dict[int, int], [NARROWER]),
        (dict[Colour, int], dict[str, int], [WIDER]),
        (dict[Annotated[int, msgspec.Meta(ge=0)], int], dict[int, int], [WIDER]),
        (Annotated[datetime, msgspec.Meta(tz=True)], datetime, [WIDER]),
        (Annotated[str, msgspec.Meta(max_length=1)] | str | int, str | int, [WIDER]),
        (datetime, Annotated[datetime, msgspec.Meta(tz=False)], [NARROWER]),
        (
            Annotated[bytes, msgspec.Meta(max_length=1)],
            Annotated[bytes, msgspec.Meta(max_length=2)],
            [WIDER],
        ),
    ],
    ids=str,
)
def test_what_types_say_and_json_schema_has_no_word_for_is_compared(
    before: Any, after: Any, directions: list[str]
) -> None:
    found = changes({"x": before}, {"x": after})
    assert [next(d for d in (WIDER, NARROWER) if d in change) for change in found] == directions
