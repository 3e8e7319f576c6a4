"""Methods and classes that declare events: their fields, defaults and values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional

import attrs
import msgspec
import pydantic
import pytest

from core.support import MakeBus
from lightbus import Api, Event, Parameter, event
from lightbus.exceptions import (
    ApiError,
    InvalidEventArguments,
)

if TYPE_CHECKING:
    from decimal import Decimal


class NotesApi(Api):
    @event
    def noted(self, /, *, what: str, **others: Any) -> None: ...

    class Meta:
        name = "notes"


async def test_further_keywords_of_a_method_accept_other_arguments(make_bus: MakeBus) -> None:
    message = await make_bus(NotesApi)[NotesApi].noted.fire_async(what="x", by="me")
    assert message.kwargs == {"what": "x", "by": "me"}


def stripped(name: str) -> str:
    return name.strip()


@attrs.frozen
class Attrs:
    """Made by attrs."""

    name: str = attrs.field(converter=stripped)
    tags: list[str] = attrs.field(factory=lambda: ["new"])


@dataclasses.dataclass
class Data:
    name: str
    tags: list[str] = dataclasses.field(default_factory=lambda: ["new"])

    def __post_init__(self) -> None:
        self.name = self.name.strip()


class Struct(msgspec.Struct):
    name: str
    tags: list[str] = msgspec.field(default_factory=lambda: ["new"])

    def __post_init__(self) -> None:
        self.name = self.name.strip()


class Tuple(NamedTuple):
    name: str
    tags: list[str] = ["new"]  # noqa: RUF012 - a field's default


class ByClassApi(Api):
    by_attrs = Event(Attrs)
    by_dataclass = Event(Data)
    by_struct = Event(Struct)
    by_tuple = Event(Tuple)

    class Meta:
        name = "by_class"


@pytest.mark.parametrize("name", ["by_attrs", "by_dataclass", "by_struct", "by_tuple"])
async def test_a_class_declares_an_event_with_its_fields(make_bus: MakeBus, name: str) -> None:
    bus = make_bus(ByClassApi)
    declared = ByClassApi.event(name)
    assert [p.annotation for p in declared.parameters.values()] == [str, list[str]]
    message = await getattr(bus.by_class, name).fire_async(name="ann", tags=["a"])
    assert message.kwargs == {"name": "ann", "tags": ["a"]}
    message = await getattr(bus.by_class, name).fire_async(name="ann")
    assert message.kwargs == {"name": "ann", "tags": ["new"]}


def test_a_generated_docstring_does_not_describe_an_event() -> None:
    assert ByClassApi.by_attrs.description == "Made by attrs."
    assert ByClassApi.by_dataclass.description == ByClassApi.by_tuple.description == ""


@pytest.mark.parametrize("name", ["by_attrs", "by_dataclass", "by_struct"])
async def test_the_class_converts_and_validates_the_values(make_bus: MakeBus, name: str) -> None:
    fire = getattr(make_bus(ByClassApi).by_class, name).fire_async
    assert (await fire(name=" ann ")).kwargs["name"] == "ann"
    with pytest.raises(InvalidEventArguments, match="does not accept them") as raised:
        await fire(name=1)
    assert raised.value.__cause__ is not None
    with pytest.raises(InvalidEventArguments, match="missing 'name'; unexpected 'nam'"):
        await fire(nam="ann")


def _takes_by_position_only(self: Any, number: int, /) -> None: ...


def _takes_more(self: Any, *numbers: int) -> None: ...


def _has_an_undefined_hint(self: Any, price: Decimal) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_takes_by_position_only, "its parameter 'number' cannot be passed by name"),
        (_takes_more, "its parameter 'numbers' cannot be passed by name"),
        (_has_an_undefined_hint, "'Decimal' is not defined. Its type hints are evaluated"),
    ],
)
def test_a_method_that_cannot_declare_an_event_is_refused_when_its_api_is_registered(
    make_bus: MakeBus, function: Any, said: str
) -> None:
    class WrongApi(Api):
        wrong = event(function)

        class Meta:
            name = "wrong"

    with pytest.raises(ApiError) as raised:
        make_bus(WrongApi)
    assert said in str(raised.value)
    assert function.__name__ in str(raised.value)


class LaterApi(Api):
    @event
    def later(self, *, thing: DefinedLater) -> None: ...

    class Meta:
        name = "later"


class DefinedLater(NamedTuple):
    x: int


def test_a_hint_may_name_a_class_that_the_module_defines_later(make_bus: MakeBus) -> None:
    make_bus(LaterApi)
    assert LaterApi.later.parameters["thing"].annotation is DefinedLater


class PrivateAttrs(Api):
    @attrs.frozen
    class Login:
        name: str
        _token: str = "none"

    logged_in = Event(Login)

    class Meta:
        name = "private"


async def test_a_private_field_of_attrs_is_fired_by_its_public_name(make_bus: MakeBus) -> None:
    message = await make_bus(PrivateAttrs).private.logged_in.fire_async(name="ann", token="t")
    assert message.kwargs == {"name": "ann", "token": "t"}
    assert PrivateAttrs.logged_in.parameters["token"].annotation is str


class Aliased(pydantic.BaseModel):
    user_name: str = pydantic.Field(alias="userName", min_length=3)
    page: pydantic.HttpUrl | None = None


class Open(pydantic.BaseModel, extra="allow"):
    number: int


class ModelApi(Api):
    aliased = Event(Aliased)
    more = Event(Open)

    class Meta:
        name = "models"


async def test_a_model_of_pydantic_declares_an_event_with_its_aliases(make_bus: MakeBus) -> None:
    bus = make_bus(ModelApi)
    message = await bus.models.aliased.fire_async(userName="ann", page="https://example.com/")
    assert message.kwargs == {"userName": "ann", "page": "https://example.com/"}
    assert ModelApi.aliased.parameters["userName"].annotation is str


async def test_extra_fields_of_a_model_travel(make_bus: MakeBus) -> None:
    message = await make_bus(ModelApi).models.more.fire_async(number=1, more=2)
    assert message.kwargs == {"number": 1, "more": 2}


async def test_an_error_of_a_model_does_not_show_the_value(make_bus: MakeBus) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await make_bus(ModelApi).models.aliased.fire_async(userName="pw")
    assert raised.value.reason == (
        "Aliased does not accept them: userName: String should have at least 3 characters"
    )


class Plain:
    """A class that does not declare its fields."""

    def __init__(self, number: int) -> None:
        self.number = number


async def test_a_plain_class_declares_an_event_by_its_constructor(
    make_bus: MakeBus,
) -> None:
    class PlainApi(Api):
        plain = Event(Plain)

        class Meta:
            name = "plain"

    bus = make_bus(PlainApi)
    assert (await bus.plain.plain.fire_async(number=1)).kwargs == {"number": 1}
    with pytest.raises(InvalidEventArguments, match=r"at `\$\.number`"):
        await bus.plain.plain.fire_async(number="1")


def test_a_method_without_self_is_refused(make_bus: MakeBus) -> None:
    class WrongApi(Api):
        @event  # type: ignore[arg-type]
        def wrong(*, username: str, email: str) -> None: ...

        class Meta:
            name = "wrong"

    with pytest.raises(ApiError, match="its first parameter must be self"):
        make_bus(WrongApi)


async def test_a_parameter_may_be_called_self(make_bus: MakeBus) -> None:
    class SelfApi(Api):
        told = Event(("self",))

        class Meta:
            name = "selves"

    assert (await make_bus(SelfApi).selves.told.fire_async(self=1)).kwargs == {"self": 1}


@pytest.mark.parametrize("name", ["", "two words", "1st", "class", 3])
def test_a_parameter_must_be_an_identifier(name: Any) -> None:
    with pytest.raises(ApiError, match="Invalid parameter name"):
        Parameter(name)


@pytest.mark.parametrize("parameter", [Parameter("a"), Parameter("a", int)], ids=repr)
def test_a_parameter_is_required(parameter: Parameter) -> None:
    assert parameter.is_required


@pytest.mark.parametrize(
    "parameter",
    [
        Parameter("a", int, default=0),
        Parameter("a", default=None),
        Parameter("a", int | None),
        Parameter("a", Optional[int]),  # noqa: UP045 - both spellings are in use
        Parameter("a", None),
        Parameter("a", Annotated[str | None, "doc"]),
        Parameter("a", Literal["a", None]),  # noqa: PYI061 - likewise
    ],
    ids=repr,
)
def test_a_parameter_with_a_default_or_that_may_be_none_is_not_required(
    parameter: Parameter,
) -> None:
    assert not parameter.is_required
