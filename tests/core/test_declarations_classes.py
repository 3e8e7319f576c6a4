"""Classes that declare events: the names and values that are declared, fired and received."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from pydantic import AliasChoices, AliasGenerator, AliasPath, ConfigDict, Field
from pydantic.alias_generators import to_camel

import lightbus.testing
from core.support import MakeBus
from lightbus import Api, Event
from lightbus.exceptions import ApiError, InvalidEventArguments
from lightbus.schema.events import LoadedSchemas, schema_of

Item = TypeVar("Item")
Other = TypeVar("Other")


def api_of(class_: Any) -> type[Api]:
    class ClassApi(Api):
        saved = Event(class_)

        class Meta:
            name = "classes"

    return ClassApi


class Serialized(pydantic.BaseModel):
    user_name: str = Field(serialization_alias="userName")


class Generated(pydantic.BaseModel):
    model_config = ConfigDict(alias_generator=AliasGenerator(serialization_alias=to_camel))
    user_name: str


class Excluded(pydantic.BaseModel):
    user_name: str = Field(exclude=True)
    cached: int = Field(default=3, exclude=True)


class Aliased(pydantic.BaseModel):
    user_name: str = Field(alias="userName")


class Populated(pydantic.BaseModel, populate_by_name=True):
    user_name: str = Field(alias="userName")


class Choices(pydantic.BaseModel):
    user_name: str = Field(validation_alias=AliasChoices("login", "userName"))


class PathOrName(pydantic.BaseModel, populate_by_name=True):
    user_name: str = Field(validation_alias=AliasPath("user", 0))


class Keyword(pydantic.BaseModel):
    user_name: str = Field(alias="class")


class Dashed(pydantic.BaseModel):
    user_name: str = Field(alias="user-name")


@pydantic.dataclasses.dataclass
class Data:
    user_name: str
    count: int = dataclasses.field(default=1, init=False)


class Boxed(pydantic.BaseModel, Generic[Item]):
    user_name: Item


@dataclasses.dataclass
class Generic1(Generic[Item]):
    user_name: Item


@dataclasses.dataclass
class Derived(Generic1[str], Generic[Other]):
    more: Other


@attrs.define
class Made(Generic[Item]):
    user_name: Item


@pytest.mark.parametrize(
    ("class_", "name"),
    [
        (Serialized, "user_name"),
        (Generated, "user_name"),
        (Excluded, "user_name"),
        (Aliased, "userName"),
        (Populated, "userName"),
        (Choices, "login"),
        (PathOrName, "user_name"),
        (Dashed, "user_name"),
        (Keyword, "user_name"),
        (Data, "user_name"),
        (Boxed[str], "user_name"),
        (Generic1[str], "user_name"),
        (Made[str], "user_name"),
    ],
    ids=str,
)
async def test_a_field_has_one_name_when_it_is_declared_fired_and_received(
    make_bus: MakeBus, class_: Any, name: str
) -> None:
    api = api_of(class_)
    bus = make_bus()
    received: list[str] = []
    with lightbus.testing.recording(bus) as events:
        bus.client.register_api(api)
        names: dict[str, Any] = {"received": received}
        exec(f"def handle({name}: str): received.append({name})", names)
        bus.classes.saved.listen(names["handle"], listener_name="listener")
        message = await bus.classes.saved.fire_async(**{name: "ann"})
        await events.drain()

    assert list(api.event("saved").parameters) == [name]
    assert api.event("saved").parameters[name].annotation is str
    assert list(schema_of([api])["properties"]["classes.saved"]["properties"]) == [name]
    assert message.kwargs == {name: "ann"}
    assert received == ["ann"]


class Json(pydantic.BaseModel):
    value: pydantic.Json[dict[str, int]]


class Epoch(pydantic.BaseModel):
    value: datetime

    @pydantic.field_serializer("value")
    def as_epoch(self, value: datetime) -> float:
        return value.timestamp()


class Text(pydantic.BaseModel):
    value: Annotated[int, pydantic.PlainSerializer(str, return_type=str)]


class Long(pydantic.BaseModel):
    value: timedelta


class Urls(pydantic.BaseModel):
    value: list[bytes]


class Keys(pydantic.BaseModel):
    value: dict[bytes, bytes]


class Nested(pydantic.BaseModel):
    value: Epoch


class Site(pydantic.BaseModel):
    value: pydantic.HttpUrl


@pydantic.dataclasses.dataclass
class Bytes:
    value: bytes


@dataclasses.dataclass
class Holding:
    value: Bytes


class Declares(NamedTuple):
    value: list[Bytes]


AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("class_", "fired", "got"),
    [
        (Json, '{"a": 1}', {"a": 1}),
        (Epoch, AT, AT),
        (Text, 3, 3),
        (Long, timedelta(days=4000), timedelta(days=4000)),
        (Urls, [b"abcd", b"\xfb\xff"], [b"abcd", b"\xfb\xff"]),
        (Keys, {b"a": b"abcd"}, {b"a": b"abcd"}),
        (Nested, Epoch(value=AT), Epoch(value=AT)),
        (Site, "https://example.com/", pydantic.HttpUrl("https://example.com/")),
        (Bytes, b"abcd", b"abcd"),
        (Holding, Bytes(b"abcd"), Bytes(b"abcd")),
        (Declares, [Bytes(b"abcd")], [Bytes(b"abcd")]),
    ],
    ids=str,
)
async def test_a_listener_with_the_declared_type_receives_the_fired_value(
    make_bus: MakeBus, tmp_path: Any, class_: Any, fired: Any, got: Any
) -> None:
    api = api_of(class_)
    bus = make_bus()
    received: list[Any] = []

    def handle(value: Any) -> None:
        received.append(value)

    with lightbus.testing.recording(bus) as events:
        bus.client.register_api(api)
        handle.__annotations__["value"] = api.event("saved").parameters["value"].annotation
        bus.classes.saved.listen(handle, listener_name="listener")
        message = await bus.classes.saved.fire_async(value=fired)
        await events.drain()

    assert received == [got]
    assert type(received[0]) is type(got)
    dumped = tmp_path / "events.json"
    dumped.write_bytes(msgspec.json.encode(schema_of([api])))
    loaded = LoadedSchemas()
    loaded.load_local(dumped)
    loaded.check("classes.saved", message.kwargs)


class Root(pydantic.RootModel[list[int]]):
    """Has no fields."""


class Pathed(pydantic.BaseModel):
    name: str = Field(validation_alias=AliasPath("user", 0))


class Typed(TypedDict):
    name: str


class Unset(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET


@pydantic.dataclasses.dataclass
class Initial:
    name: str
    password: dataclasses.InitVar[str]


@dataclasses.dataclass
class InitialData:
    name: str
    password: dataclasses.InitVar[str]

    def __post_init__(self, password: str) -> None: ...


@pytest.mark.parametrize(
    ("class_", "said"),
    [
        (Root, "Root cannot declare an event: a RootModel has no named fields"),
        (Pathed, "Pathed cannot declare an event: the alias of its field 'name' is a path"),
        (Typed, "Typed cannot declare an event: it is a TypedDict"),
        (int | None, "cannot declare an event. Pass names, Parameter objects or a class"),
        (Unset, "'name' has the default UNSET"),
        (Initial, "requires 'password', but has no such field"),
        (InitialData, "requires 'password', but has no such field"),
    ],
    ids=str,
)
def test_a_class_that_cannot_declare_an_event_is_refused_with_the_reason(
    make_bus: MakeBus, class_: Any, said: str
) -> None:
    with pytest.raises(ApiError, match=said):  # noqa: PT012 - either may refuse it
        api = api_of(class_)
        make_bus(api)


def test_type_variables_of_generic_classes_are_replaced_by_their_types() -> None:
    parameters = api_of(Derived[int]).event("saved").parameters
    assert [p.annotation for p in parameters.values()] == [str, int]


async def test_a_generic_class_checks_the_values_of_its_event(make_bus: MakeBus) -> None:
    bus = make_bus(api_of(Generic1[int]))
    with pytest.raises(InvalidEventArguments, match="Expected `int`"):
        await bus.classes.saved.fire_async(user_name="ann")
