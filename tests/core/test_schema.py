"""What events look like as JSON Schema, and which changes of it break a listener."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import re
import time as time_module
from collections.abc import Callable
from dataclasses import field
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NotRequired, Optional, TypedDict, TypeVar

import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from command import Command
from lightbus import Api, Event, Parameter, WildcardParameter, event
from lightbus.exceptions import InvalidApi
from lightbus.reading import parameters_of
from lightbus.schema import breaking_changes, read_schema, schema_of

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Street:
    """Where a house is."""

    name: str
    number: int | None = None
    next_one: Street | None = None


class Room(pydantic.BaseModel):
    colour: Colour


class House(pydantic.BaseModel):
    rooms: list[Room]


class HouseApi(Api):
    @event
    def built(
        self,
        *,
        street: Street,
        house: House,
        at: datetime,
        colours: set[Colour] = frozenset(),  # type: ignore[assignment]
        kind: Literal["new", "old"] = "new",
        other: object = None,
    ) -> None:
        """A house stands."""

    sold = Event(parameters=("price", Parameter("buyer", str, default="nobody")))

    class Meta:
        name = "houses"


BUILT = {
    "street": {"name": "High Street", "next_one": {"name": "Low Street", "number": 3}},
    "house": {"rooms": [{"colour": "red"}]},
    "at": "2026-01-02T03:04:05Z",
    "colours": ["red"],
    "kind": "old",
}


def errors(fields: dict[str, Any]) -> list[str]:
    document = schema_of([HouseApi])
    jsonschema.Draft202012Validator.check_schema(document)
    validator = jsonschema.Draft202012Validator(document)
    return [error.json_path for error in validator.iter_errors({"houses.built": fields})]


def test_the_schema_takes_what_is_fired_and_nothing_else() -> None:
    assert errors(BUILT) == []
    assert len(errors({})) == 3
    assert errors({**BUILT, "kind": "older"})
    assert errors({**BUILT, "house": {"rooms": [{"colour": "green"}]}})
    assert errors({**BUILT, "street": {"name": "a", "next_one": {"name": 1}}})
    assert errors({**BUILT, "more": 1}) == []


def test_the_schema_of_an_event_has_its_docstring_its_defaults_and_what_is_required() -> None:
    events = schema_of([HouseApi])["properties"]
    built = events["houses.built"]
    assert built["description"] == "A house stands."
    assert built["required"] == ["street", "house", "at"]
    assert built["properties"]["kind"] == {"enum": ["new", "old"], "default": "new"}
    assert built["properties"]["colours"]["default"] == []
    assert events["houses.sold"] == {
        "type": "object",
        "properties": {"price": {}, "buyer": {"type": "string", "default": "nobody"}},
        "required": ["price"],
    }


# Changes


def api(**hints: Any) -> type[Api]:
    """Return an API whose only event has parameters of these types, or with these defaults."""
    parameters = [
        Parameter(name, *(hint if isinstance(hint, tuple) else (hint,)))
        for name, hint in hints.items()
    ]
    return type(
        "SomeApi", (Api,), {"e": Event(parameters), "Meta": type("Meta", (), {"name": "a"})}
    )


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = breaking_changes(schema_of([api(**before)]), schema_of([api(**after)]))
    return [f"{change.field}: {change.what}" for change in found]


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


WIDER, NARROWER = "it admits more than before: ", "it admits less than before: "


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({"x": int}, {}, ["x: it is gone"]),
        ({}, {"x": int}, ["x: it is new and required"]),
        ({"x": (int, 3)}, {"x": int}, ["x: it was optional and is required"]),
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
    assert (change.event, change.field, change.what) == ("a.e", "", "it is gone")
    assert "no more events" in change.why


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
    assert (change.field, change.what) == ("", "it admits no further fields")


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


class Address(pydantic.BaseModel):
    ip: str


class Server(pydantic.BaseModel):
    address: Address


def another_address() -> Any:
    class Address(pydantic.BaseModel):
        street: str

    return Address


Home = pydantic.create_model("Home", address=(another_address(), ...))


def dated() -> Any:
    @dataclasses.dataclass
    class Dated:
        at: datetime

    Dated.__qualname__ = "dated.Dated"
    return Dated


def dated_too() -> Any:
    @dataclasses.dataclass
    class Dated:
        at: datetime

    return Dated


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    more: list[T]
    at: datetime


class Money:
    """A class of which no schema is known."""

    @classmethod
    def __from_bus__(cls, value: str) -> Money:
        return cls()

    def __to_bus__(self) -> str:
        return "1.00"


def test_a_model_for_which_pydantic_has_no_schema_may_be_anything() -> None:
    class Plugin(pydantic.BaseModel):
        run: Callable[[], None]

    document = schema_of([api(x=Plugin)])

    assert document["properties"]["a.e"]["properties"]["x"] == {"title": "Plugin"}


def test_classes_of_one_name_keep_their_schemas_apart() -> None:
    class NetApi(Api):
        e = Event([Parameter("server", Server), Parameter("house", Home)])

        class Meta:
            name = "net"

    document = schema_of([NetApi])
    validator = jsonschema.Draft202012Validator(document)
    right = {"server": {"address": {"ip": "::1"}}, "house": {"address": {"street": "High"}}}
    assert list(validator.iter_errors({"net.e": right})) == []
    wrong = {**right, "server": {"address": {"street": "High"}}}
    assert len(list(validator.iter_errors({"net.e": wrong}))) == 1


DATE_TIME = {"type": "string", "format": "date-time"}


def test_dates_in_classes_of_one_name_have_their_format() -> None:
    document = schema_of([api(x=dated(), y=dated_too())])

    assert len(document["$defs"]) == 2
    for definition in document["$defs"].values():
        assert definition["properties"] == {"at": DATE_TIME}


def test_a_dated_field_refers_to_the_classes_that_it_holds_by_their_names() -> None:
    first: Any = dated()
    second: Any = dated_too()
    both = dataclasses.make_dataclass(
        "Both", [("x", first | datetime), ("y", dict[str, second | datetime])]
    )

    document = schema_of([api(z=both)])

    jsonschema.Draft202012Validator(document).validate(
        {"a.e": {"z": {"x": {"at": "2026-01-02T03:04:05Z"}, "y": {"k": "2026-01-02T03:04:05Z"}}}}
    )
    names = {name for name in document["$defs"] if name.endswith("Dated")}
    assert len(names) == 2
    assert all(f'"#/$defs/{name}"' in json.dumps(document["$defs"]["Both"]) for name in names)


def test_a_date_in_a_field_that_travels_by_another_name_has_its_format() -> None:
    class Renamed(msgspec.Struct, rename="camel"):
        paid_at: datetime

    document = schema_of([api(x=Renamed)])

    assert document["$defs"]["Renamed"]["properties"] == {"paidAt": DATE_TIME}


def test_a_generic_class_has_a_schema_for_each_type_that_it_holds() -> None:
    document = schema_of([api(x=Box[int], y=list[Box[datetime]])])

    number = {"type": "integer"}
    assert {name: one["properties"] for name, one in document["$defs"].items()} == {
        f"Box_{name}_": {"content": of, "more": {"type": "array", "items": of}, "at": DATE_TIME}
        for name, of in (("int", number), ("datetime", DATE_TIME))
    }


@pytest.mark.parametrize("hint", [Money, Money | None, list[Money]], ids=str)
def test_a_class_that_makes_itself_may_be_anything(hint: Any) -> None:
    document = schema_of([api(x=hint)])
    jsonschema.Draft202012Validator.check_schema(document)
    assert changes({"x": hint}, {"x": hint}) == []


def test_a_factory_is_no_default() -> None:
    @attrs.frozen
    class Tagged:
        tags: list[str] = attrs.Factory(list)

    class TaggedApi(Api):
        e = Event(Tagged)

        class Meta:
            name = "tagged"

    (properties,) = (e["properties"] for e in schema_of([TaggedApi])["properties"].values())
    assert properties == {"tags": {"type": "array", "items": {"type": "string"}}}


# Fields of classes


make: Any = dataclasses.make_dataclass
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


# What says nothing about values


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


# Flags


class May(enum.Flag):
    READ = 1
    WRITE = 4


class MayRun(enum.Flag):
    READ = 1
    RUN = 2
    WRITE = 4


class Bits(enum.IntFlag):
    LOW = 1


class FlagModel(pydantic.BaseModel):
    may: May


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (May, [0, 1, 4, 5]),
        (list[May], [[0, 5]]),
        (Bits, [0, 1, 2, 64]),
        (dict[May, int], [{"5": 1}]),
        (FlagModel, [{"may": 5}]),
    ],
)
def test_the_schema_of_a_flag_admits_its_combinations(hint: Any, values: list[Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema_of([api(x=hint)]))
    for value in values:
        assert list(validator.iter_errors({"a.e": {"x": value}})) == []
    assert list(validator.iter_errors({"a.e": {"x": "1"}}))


def test_a_flag_that_gets_or_loses_a_member_has_changed() -> None:
    assert [WIDER in change for change in changes({"x": May}, {"x": MayRun})] == [True]
    assert [NARROWER in change for change in changes({"x": MayRun}, {"x": May})] == [True]


# Defaults that have no JSON form


class Price:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __to_bus__(self) -> int:
        return self.cents

    @classmethod
    def __from_bus__(cls, value: int) -> Price:
        return cls(value)


class Broken(Price):
    def __to_bus__(self) -> int:
        raise LookupError


class Counted(pydantic.BaseModel):
    count: int = 1


@pytest.mark.parametrize(
    ("default", "stated"),
    [
        (Price(3), {"default": 3}),
        (Broken(3), {}),
        (Counted(), {"default": {"count": 1}}),
        (object(), {}),
        (float("inf"), {}),
        ([float("nan")], {}),
        (pydantic.Field(default=2, ge=0), {}),
    ],
    ids=str,
)
def test_a_nested_default_is_stated_where_it_has_a_json_form(
    default: Any, stated: dict[str, Any]
) -> None:
    def factory() -> Any:
        return default

    of_attrs = attrs.make_class("Holder", {"held": attrs.field(default=default)})
    of_attrs.__annotations__ = {"held": Any}
    of_struct = msgspec.defstruct("Holder", [("held", Any, field_of_struct(default))])
    for holder in (of_attrs, of_struct):
        document = schema_of([api(x=holder)])
        (definition,) = document["$defs"].values()
        assert {
            k: v for k, v in definition["properties"]["held"].items() if k == "default"
        } == stated
        json.dumps(document, allow_nan=False)


def field_of_struct(default: Any) -> Any:
    return msgspec.field(default_factory=lambda: default) if isinstance(default, list) else default


@pytest.mark.parametrize(
    "hint",
    [
        pydantic.create_model("M", a=(float, pydantic.Field(float("inf"), le=float("inf")))),
        pydantic.create_model("M", a=(Any, object())),
        Annotated[int, msgspec.Meta(extra_json_schema={"x-since": datetime(2026, 1, 1)})],  # noqa: DTZ001
    ],
    ids=str,
)
def test_what_has_no_json_form_is_left_out_of_a_schema(hint: Any) -> None:
    text = json.dumps(schema_of([api(x=hint)]), allow_nan=False)
    assert jsonschema.Draft202012Validator.check_schema(json.loads(text)) is None


class Undescribed:
    """Stands where a docstring is looked for, and is none."""

    def __bool__(self) -> bool:
        raise LookupError("no docs")


def test_an_event_whose_schema_cannot_be_made_is_named() -> None:
    broken = make("Broken", [("a", int)])
    broken.__doc__ = Undescribed()

    with pytest.raises(InvalidApi, match=r"Event a\.e .* parameter 'x'.*no docs"):
        schema_of([api(x=broken)])


@dataclasses.dataclass
class Tree:
    leaf: Address | datetime | list[Tree] | None = None
    notes: list[str] = field(default_factory=list)


def test_a_union_that_the_decoder_does_not_take_has_the_schemas_of_its_types() -> None:
    hint = Address | datetime | Annotated[int, msgspec.Meta(ge=1)]
    document = schema_of([api(x=hint, y=Tree)])

    validator = jsonschema.Draft202012Validator(document)
    tree = {"leaf": [{"leaf": {"ip": "::1"}}, {"leaf": "2026-01-02T03:04:05Z"}], "notes": ["a"]}
    for value in ({"ip": "::1"}, "2026-01-02T03:04:05Z", 1):
        assert list(validator.iter_errors({"a.e": {"x": value, "y": tree}})) == []
    for wrong in ({"x": 0, "y": tree}, {"x": 1, "y": {"leaf": [{"leaf": {"ip": 1}}]}}):
        assert len(list(validator.iter_errors({"a.e": wrong}))) == 1
    assert "default" not in document["$defs"]["Tree"]["properties"]["notes"]
    assert changes({"x": hint, "y": Tree}, {"x": hint, "y": Tree}) == []


# Definitions


def test_references_need_no_escape() -> None:
    class Page(pydantic.BaseModel, Generic[T]):
        items: list[T]

    document = schema_of([api(x=Page[Address], y=Box[int])])

    assert len(document["$defs"]) == 2
    for name in document["$defs"]:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        assert f'"#/$defs/{name}"' in json.dumps(document)


def test_models_of_one_name_from_one_place_keep_their_schemas_apart() -> None:
    def model(**fields: Any) -> Any:
        inner = pydantic.create_model("Inner", **fields)
        return pydantic.create_model("Outer", a=inner, b=inner)

    document = schema_of([api(x=model(n=(int, ...)), y=model(s=(str, ...)))])

    inner = [list(one["properties"]) for one in document["$defs"].values()]
    assert sorted(inner) == [["n"], ["s"]]


def box(hint: Any) -> Any:
    """Return a generic class whose name others have, too."""
    base: Any = Generic
    return make("Box", [("content", T), ("more", hint)], bases=(base[T],))


def test_generic_classes_of_one_name_keep_their_schemas_apart() -> None:
    document = schema_of([api(x=box(int)[str], y=box(str)[str], z=Box[str])])

    more = [one["properties"]["more"]["type"] for one in document["$defs"].values()]
    assert sorted(more) == ["array", "integer", "string"]


def test_fields_that_are_named_like_keywords_are_fields() -> None:
    names = ["items", "prefixItems", "properties", "anyOf", "x-owner", "default", "required"]
    before = parameters_of(dict.fromkeys(names, int))
    after = parameters_of({**dict.fromkeys(names, int), "items": str})

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


# The command

BUS = """
import lightbus
from lightbus import Api, event

bus = lightbus.create()


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, {more}) -> None:
        "Someone has an account now."

    class Meta:
        name = "auth"


bus.client.register_api(AuthApi)
"""


def test_the_command_prints_a_schema_and_checks_against_it(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "bus.py").write_text(BUS.format(more="age: int"))
    code, printed, _ = command("schema", "dump")
    assert code == 0
    (tmp_path / "old.json").write_text(printed)
    assert list(read_schema(tmp_path / "old.json")["properties"]) == ["auth.user_created"]

    code, said, _ = command("schema", "check", "old.json")
    assert (code, said) == (0, "No listener breaks: 1 events compared.\n")

    (tmp_path / "bus.py").write_text(BUS.format(more="age: int | str"))
    code, said, _ = command("schema", "check", "old.json")
    assert code == 1
    assert "auth.user_created, field 'age': it admits more than before: at $, string" in said
    assert "Listeners that were written for the old version may receive values" in said
