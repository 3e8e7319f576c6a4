"""What events look like as JSON Schema, and which changes of it break a listener."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import time as time_module
from collections.abc import Callable
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from command import Command
from core.support import MakeBus
from lightbus import Api, Event, Parameter, WildcardParameter, event
from lightbus.exceptions import InvalidEventArguments, InvalidSchema
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


WIDER, NARROWER = "it can be what it could not be: ", "it can not be what it could be: "


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
    assert "hear of nothing" in change.why


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


async def test_a_file_that_refers_to_itself_without_end_is_told(
    make_bus: MakeBus, tmp_path: Path
) -> None:
    bus = make_bus(api(x=Any))
    path = tmp_path / "endless.json"
    endless = {"$ref": "#/$defs/a"}
    path.write_text(json.dumps({"properties": {"a.e": endless}, "$defs": {"a": endless}}))
    bus.schema.load_local(path)

    with pytest.raises(InvalidSchema, match="refers to itself without end"):
        await bus.a.e.fire_async(x=1)


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


# Files


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(schema_of([api(x=int, y=(list[str], []))])))
    return path


async def test_what_is_fired_has_to_fit_a_file_that_is_loaded(
    make_bus: MakeBus, schema_file: Path
) -> None:
    bus = make_bus(api(x=Any, y=(Any, [])), HouseApi)
    bus.schema.load_local(schema_file)
    assert (await bus.a.e.fire_async(x=1)).kwargs == {"x": 1, "y": []}
    await bus.houses.sold.fire_async(price="not in the file")
    with pytest.raises(InvalidEventArguments) as raised:
        await bus.a.e.fire_async(x=1, y=["fine", {"password": "hunter2"}])
    reason = f"Expected `string`, got `dict` - at `$.y[1]`, by {schema_file}"
    assert raised.value.reason == reason
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can not be read: "),
        ("{", "is no JSON"),
        ("[]", "has no events in it"),
        ("{}", "has no events in it"),
        ('{"properties": {"a.e": 3}}', "has no events in it"),
        ('{"properties": []}', "has no events in it"),
        ('{"properties": {"a.e": {"properties": []}}}', "has no events in it"),
        ('{"properties": {"a.e": {"$ref": "#/$defs/x"}}}', "refers to '#/$defs/x', which is not"),
        ('{"properties": {"a.e": {"$dynamicRef": "#x"}}}', "refers to '#x', which is not"),
        ('{"properties": {"a.e": {"type": "strnig"}}}', "is no JSON Schema"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_file_that_is_no_schema_says_so(
    make_bus: MakeBus, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidSchema) as raised:
        make_bus().schema.load_local(path)
    assert said in str(raised.value)


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
    assert "auth.user_created, field 'age': it can be what it could not be: at $, string" in said
    assert "Listeners that were written for what it was get what they do not take." in said


def test_the_command_says_what_is_wrong_with_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text(BUS.format(more="age: int"))
    code, _, said = command("schema", "check", "old.json")
    assert (code, "old.json can not be read" in said) == (2, True)
