from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import msgspec
import pytest

from core.support import MakeBus, Received
from lightbus import Api, Bus, Event, EventMessage, Parameter, Worker, event
from lightbus.exceptions import (
    EventNotFound,
    InvalidApi,
    InvalidEventArguments,
    InvalidParameters,
    NotOnBus,
    UnknownApi,
)

if TYPE_CHECKING:
    from decimal import Decimal


class ShopApi(Api):
    @event
    def ordered(self, *, number: int, at: datetime | None = None, rush: bool = False) -> None:
        """Someone has ordered.

        Not paid yet.
        """

    @event
    def paid(self, number: int, cents: int = 0) -> None: ...

    @event
    def noted(self, /, *, what: str, **others: Any) -> None: ...

    listed = Event(parameters=("number", Parameter("rush", bool, default=False)))

    class Meta:
        name = "shop.orders"


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(ShopApi)


def test_a_method_declares_an_event_with_its_parameters_and_its_docstring() -> None:
    ordered = ShopApi.event("ordered")
    assert ordered is ShopApi.ordered
    assert ordered.parameters == {
        "number": Parameter("number", int),
        "at": Parameter("at", datetime | None),
        "rush": Parameter("rush", bool, default=False),
    }
    assert ordered.description == "Someone has ordered.\n\nNot paid yet."
    assert ShopApi.paid.description == ShopApi.listed.description == ""
    assert repr(ShopApi.noted) == "<Event noted(what, *)>"


async def test_both_declarations_mean_the_same_on_the_wire(bus: Bus) -> None:
    declared = await bus[ShopApi].ordered.fire_async(number=1)
    listed = await bus[ShopApi].listed.fire_async(number=1)
    assert declared.kwargs == {"number": 1, "at": None, "rush": False}
    assert listed.kwargs == {"number": 1, "rush": False}
    assert declared.canonical_name == "shop.orders.ordered"


def test_a_typed_api_leads_where_the_names_do(bus: Bus) -> None:
    assert bus[ShopApi].paid is bus.shop.orders.paid
    assert bus[ShopApi] is bus[ShopApi]


def test_fire_blocks_on_a_typed_api_too(bus: Bus) -> None:
    assert bus[ShopApi].ordered.fire(number=2, rush=True).kwargs["rush"] is True


async def test_arguments_by_position_are_taken_where_the_declaration_takes_them(bus: Bus) -> None:
    assert (await bus[ShopApi].paid.fire_async(1, 99)).kwargs == {"number": 1, "cents": 99}
    assert (await bus.shop.orders.paid.fire_async(1)).kwargs == {"number": 1, "cents": 0}


@pytest.mark.parametrize(
    ("fire", "said"),
    [
        (lambda bus: bus[ShopApi].ordered.fire_async(1), "with 1 positional argument"),
        (
            lambda bus: bus[ShopApi].paid.fire_async(1, 2, 3),
            "3 positional argument(s), and takes 2",
        ),
        (lambda bus: bus[ShopApi].paid.fire_async(1, number=1), "two values for number"),
        (lambda bus: bus[ShopApi].listed.fire_async(1), "with 1 positional argument"),
    ],
)
async def test_other_arguments_by_position_are_refused(
    bus: Bus, fire: Callable[[Bus], Any], said: str
) -> None:
    with pytest.raises(InvalidParameters) as raised:
        await fire(bus)
    assert said in str(raised.value)


async def test_a_typed_event_refuses_what_it_does_not_have_and_misses_what_it_needs(
    bus: Bus,
) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await bus.shop.orders.ordered.fire_async(nummer=1)
    assert (raised.value.missing, raised.value.unexpected) == (("number",), ("nummer",))


async def test_further_keywords_of_a_method_admit_any(bus: Bus) -> None:
    message = await bus[ShopApi].noted.fire_async(what="x", by="me")
    assert message.kwargs == {"what": "x", "by": "me"}


async def test_a_handler_listens_to_a_typed_event(bus: Bus, received: Received) -> None:
    def handle(event: EventMessage, *, number: int, **_: object) -> None:
        received.add((event.event_name, number))

    bus[ShopApi].ordered.listen(handle, listener_name="orders")
    async with Worker(bus):
        await bus[ShopApi].ordered.fire_async(number=7)
        assert await received.next() == ("ordered", 7)


def test_firing_on_a_typed_api_that_is_not_registered_says_so(make_bus: MakeBus) -> None:
    with pytest.raises(UnknownApi):
        make_bus()[ShopApi].ordered.fire(number=1)


@pytest.mark.parametrize("what", [Api, str, "shop.orders"])
def test_a_bus_is_asked_for_apis_by_their_class(bus: Bus, what: Any) -> None:
    with pytest.raises(InvalidApi):
        bus[what]


def test_an_instance_that_belongs_to_no_bus_says_how_its_events_are_reached() -> None:
    with pytest.raises(NotOnBus, match=r"reached as bus\[ShopApi\]\.ordered"):
        _ = ShopApi().ordered
    assert not hasattr(ShopApi(), "ordered")


def test_a_method_without_the_decorator_is_no_event() -> None:
    class PlainApi(Api):
        def helper(self) -> int:
            return 1

        class Meta:
            name = "plain"

    with pytest.raises(EventNotFound):
        PlainApi.event("helper")


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


def test_only_a_docstring_that_someone_wrote_describes_an_event() -> None:
    assert ByClassApi.by_attrs.description == "Made by attrs."
    assert ByClassApi.by_dataclass.description == ByClassApi.by_tuple.description == ""


@pytest.mark.parametrize("name", ["by_attrs", "by_dataclass", "by_struct"])
async def test_the_class_has_its_say_about_the_values(make_bus: MakeBus, name: str) -> None:
    fire = getattr(make_bus(ByClassApi).by_class, name).fire_async
    assert (await fire(name=" ann ")).kwargs["name"] == "ann"
    with pytest.raises(InvalidEventArguments, match="does not take them") as raised:
        await fire(name=1)
    assert raised.value.__cause__ is not None
    with pytest.raises(InvalidEventArguments, match="missing 'name'; unexpected 'nam'"):
        await fire(nam="ann")


def _takes_by_position_only(self: Any, number: int, /) -> None: ...
def _takes_more(self: Any, *numbers: int) -> None: ...
def _has_a_hint_that_is_not_there(self: Any, price: Decimal) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_takes_by_position_only, "its parameter 'number' can not be given by name"),
        (_takes_more, "its parameter 'numbers' can not be given by name"),
        (_has_a_hint_that_is_not_there, "'Decimal' is not defined. Its type hints are needed"),
    ],
)
def test_a_method_that_can_not_declare_an_event_is_told_when_its_api_is_registered(
    make_bus: MakeBus, function: Any, said: str
) -> None:
    class WrongApi(Api):
        wrong = event(function)

        class Meta:
            name = "wrong"

    with pytest.raises(InvalidApi) as raised:
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


def test_a_hint_may_name_what_the_module_defines_later(make_bus: MakeBus) -> None:
    make_bus(LaterApi)
    assert LaterApi.later.parameters["thing"].annotation is DefinedLater


class TypedApi(Api):
    @event
    def sold(self, *, number: int, at: datetime | None = None, note: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    weighed = Event(parameters=("what", Parameter("grams", int)))

    class Meta:
        name = "typed"


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("sold", {"number": "7"}, "Expected `int`, got `str` - at `$.number`"),
        ("sold", {"number": 7, "at": "now"}, "Invalid RFC3339 encoded datetime - at `$.at`"),
        ("weighed", {"what": 1, "grams": 1.5}, "Expected `int`, got `float` - at `$.grams`"),
    ],
)
async def test_a_value_of_another_type_than_declared_is_refused_with_its_place(
    make_bus: MakeBus, name: str, given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await getattr(make_bus(TypedApi).typed, name).fire_async(**given)
    assert raised.value.reason == reason
    assert f"Event typed.{name} was fired with wrong arguments: {reason}" in str(raised.value)


async def test_a_default_of_none_is_a_value_of_its_type(make_bus: MakeBus) -> None:
    message = await make_bus(TypedApi).typed.sold.fire_async(number=1)
    assert message.kwargs == {"number": 1, "at": None, "note": None}


async def test_values_are_not_looked_at_where_the_configuration_says_so(make_bus: MakeBus) -> None:
    bus = make_bus(TypedApi, validate=False)
    assert (await bus.typed.sold.fire_async(number="7")).kwargs["number"] == "7"


async def test_handlers_get_what_json_has_where_the_configuration_says_so(
    make_bus: MakeBus, received: Received
) -> None:
    def handle(number: str, at: datetime) -> None:
        received.add((number, at))

    bus = make_bus(TypedApi, cast_values=False)
    bus.typed.sold.listen(handle, listener_name="sold")
    async with Worker(bus):
        await bus.typed.sold.fire_async(number=1, at=datetime(2026, 1, 2, tzinfo=UTC))
        assert await received.next() == (1, "2026-01-02T00:00:00Z")
