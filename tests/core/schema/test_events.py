"""What events look like as JSON Schema."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Callable
from dataclasses import field
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import attrs
import jsonschema
import msgspec
import pydantic
import pytest

from core.schema.examples import Colour, House, Street, api, changes, make
from lightbus import Api, Event, Parameter, event
from lightbus.encoding import json_codec
from lightbus.exceptions import ApiError
from lightbus.schema.events import schema_of

T = TypeVar("T")


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


def test_the_schema_accepts_fired_events_and_nothing_else() -> None:
    assert errors(BUILT) == []
    assert len(errors({})) == 3
    assert errors({**BUILT, "kind": "older"})
    assert errors({**BUILT, "house": {"rooms": [{"colour": "green"}]}})
    assert errors({**BUILT, "street": {"name": "a", "next_one": {"name": 1}}})
    assert errors({**BUILT, "more": 1}) == []


def test_the_schema_of_an_event_has_its_docstring_defaults_and_required_fields() -> None:
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


def test_classes_of_the_same_name_have_separate_schemas() -> None:
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


class Level(enum.Enum):
    LOW = 1


class Counts(pydantic.BaseModel):
    of_levels: dict[Level, int]
    of_colours: dict[Colour, int]


def test_keys_of_a_model_that_are_enums_have_the_schema_of_what_is_encoded() -> None:
    validator = jsonschema.Draft202012Validator(schema_of([api(x=Counts)]))
    counts = Counts(of_levels={Level.LOW: 1}, of_colours={Colour.RED: 1})
    fields = json_codec.decode(json_codec.encode({"x": counts}))

    assert list(validator.iter_errors({"a.e": fields})) == []
    fields["x"]["of_colours"]["grey"] = 1
    assert len(list(validator.iter_errors({"a.e": fields}))) == 1


def test_a_factory_is_not_a_default() -> None:
    @attrs.frozen
    class Tagged:
        tags: list[str] = attrs.Factory(list)

    class TaggedApi(Api):
        e = Event(Tagged)

        class Meta:
            name = "tagged"

    (properties,) = (e["properties"] for e in schema_of([TaggedApi])["properties"].values())
    assert properties == {"tags": {"type": "array", "items": {"type": "string"}}}


class May(enum.Flag):
    READ = 1
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
def test_a_nested_default_is_in_the_schema_if_it_can_be_encoded(
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
def test_a_default_that_cannot_be_encoded_is_omitted_from_a_schema(hint: Any) -> None:
    text = json.dumps(schema_of([api(x=hint)]), allow_nan=False)
    assert jsonschema.Draft202012Validator.check_schema(json.loads(text)) is None


class Undescribed:
    """Stands where a docstring is looked for, and is none."""

    def __bool__(self) -> bool:
        raise LookupError("no docs")


def test_an_event_whose_schema_cannot_be_made_is_named() -> None:
    broken = make("Broken", [("a", int)])
    broken.__doc__ = Undescribed()

    with pytest.raises(ApiError, match=r"Event a\.e .* parameter 'x'.*no docs"):
        schema_of([api(x=broken)])


@dataclasses.dataclass
class Tree:
    leaf: Address | datetime | list[Tree] | None = None
    notes: list[str] = field(default_factory=list)


def test_an_unsupported_union_has_the_schemas_of_its_types() -> None:
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


def test_references_need_no_escape() -> None:
    class Page(pydantic.BaseModel, Generic[T]):
        items: list[T]

    document = schema_of([api(x=Page[Address], y=Box[int])])

    assert len(document["$defs"]) == 2
    for name in document["$defs"]:
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        assert f'"#/$defs/{name}"' in json.dumps(document)


def test_models_of_the_same_name_and_module_have_separate_schemas() -> None:
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


def test_generic_classes_of_the_same_name_have_separate_schemas() -> None:
    document = schema_of([api(x=box(int)[str], y=box(str)[str], z=Box[str])])

    more = [one["properties"]["more"]["type"] for one in document["$defs"].values()]
    assert sorted(more) == ["array", "integer", "string"]
