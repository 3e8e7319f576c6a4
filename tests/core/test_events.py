"""Events that are fired: their arguments, and the API's types on a bus."""

from __future__ import annotations

import enum
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from core.support import MakeBus, Received
from lightbus import Api, Bus, Event, EventMessage, Parameter, WildcardParameter, Worker, event
from lightbus.exceptions import (
    ApiError,
    EventNotFound,
    InvalidEventArguments,
)


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


def test_a_typed_api_and_the_names_lead_to_the_same_event(bus: Bus) -> None:
    assert bus[ShopApi].paid is bus.shop.orders.paid
    assert bus[ShopApi] is bus[ShopApi]


def test_fire_blocks_on_a_typed_api_too(bus: Bus) -> None:
    assert bus[ShopApi].ordered.fire(number=2, rush=True).kwargs["rush"] is True


async def test_positional_arguments_are_accepted_if_the_declaration_accepts_them(
    bus: Bus,
) -> None:
    assert (await bus[ShopApi].paid.fire_async(1, 99)).kwargs == {"number": 1, "cents": 99}
    assert (await bus.shop.orders.paid.fire_async(1)).kwargs == {"number": 1, "cents": 0}


@pytest.mark.parametrize(
    ("fire", "said"),
    [
        (lambda bus: bus[ShopApi].ordered.fire_async(1), "1 positional, but at most 0 expected"),
        (
            lambda bus: bus[ShopApi].paid.fire_async(1, 2, 3),
            "3 positional, but at most 2 expected",
        ),
        (lambda bus: bus[ShopApi].paid.fire_async(1, number=1), "two values for number"),
        (lambda bus: bus[ShopApi].listed.fire_async(1), "1 positional, but at most 0 expected"),
    ],
)
async def test_other_positional_arguments_are_refused(
    bus: Bus, fire: Callable[[Bus], Any], said: str
) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await fire(bus)
    assert said in str(raised.value)


async def test_missing_and_unexpected_arguments_of_a_typed_event_are_named(
    bus: Bus,
) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await bus.shop.orders.ordered.fire_async(nummer=1)
    assert (raised.value.missing, raised.value.unexpected) == (("number",), ("nummer",))


async def test_a_handler_listens_to_a_typed_event(bus: Bus, received: Received) -> None:
    def handle(event: EventMessage, *, number: int, **_: object) -> None:
        received.add((event.event_name, number))

    bus[ShopApi].ordered.listen(handle, listener_name="orders")
    async with Worker(bus):
        await bus[ShopApi].ordered.fire_async(number=7)
        assert await received.next() == ("ordered", 7)


def test_firing_on_a_typed_api_that_is_not_registered_is_an_error(make_bus: MakeBus) -> None:
    with pytest.raises(EventNotFound):
        make_bus()[ShopApi].ordered.fire(number=1)


@pytest.mark.parametrize("what", [Api, str, "shop.orders"])
def test_a_bus_is_indexed_only_by_classes_of_apis(bus: Bus, what: Any) -> None:
    with pytest.raises(ApiError):
        bus[what]


def test_an_event_of_an_instance_without_a_bus_raises_an_error_with_the_remedy() -> None:
    with pytest.raises(EventNotFound, match=r"Use bus\[ShopApi\]\.ordered"):
        _ = ShopApi().ordered
    assert not hasattr(ShopApi(), "ordered")


class TypedApi(Api):
    @event
    def sold(self, *, number: int, at: datetime | None = None, note: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    weighed = Event(parameters=("what", Parameter("grams", int)))

    class Meta:
        name = "typed"


@pytest.mark.parametrize(
    ("name", "given", "path"),
    [
        ("sold", {"number": "7"}, "$.number"),
        ("sold", {"number": 7, "at": "now"}, "$.at"),
        ("weighed", {"what": 1, "grams": 1.5}, "$.grams"),
    ],
)
async def test_a_value_of_another_type_than_declared_is_refused_with_its_place(
    make_bus: MakeBus, name: str, given: dict[str, Any], path: str
) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await getattr(make_bus(TypedApi).typed, name).fire_async(**given)
    assert raised.value.reason.endswith(f" at `{path}`")
    assert f"Event typed.{name} was fired with wrong arguments: " in str(raised.value)


async def test_a_default_of_none_is_a_value_of_its_type(make_bus: MakeBus) -> None:
    message = await make_bus(TypedApi).typed.sold.fire_async(number=1)
    assert message.kwargs == {"number": 1, "at": None, "note": None}


async def test_values_are_not_checked_if_the_configuration_says_so(make_bus: MakeBus) -> None:
    bus = make_bus(TypedApi, validate=False)
    assert (await bus.typed.sold.fire_async(number="7")).kwargs["number"] == "7"


class Secret(enum.Enum):
    KNOWN = "known"


async def test_an_unknown_value_of_an_enum_is_not_shown(make_bus: MakeBus) -> None:
    class SecretApi(Api):
        told = Event([Parameter("secret", Secret)])

        class Meta:
            name = "secrets"

    with pytest.raises(InvalidEventArguments) as raised:
        await make_bus(SecretApi).secrets.told.fire_async(secret="hunter2 - at `x")
    assert raised.value.reason.endswith(" at `$.secret`")
    assert "hunter2" not in raised.value.reason


def test_a_plain_string_is_one_parameter() -> None:
    assert list(Event(parameters="username").parameters) == ["username"]


def test_an_event_may_have_no_parameters() -> None:
    assert Event().arguments("x.y", {}) == {}


def test_two_parameters_of_one_name_are_refused() -> None:
    with pytest.raises(ApiError, match="two parameters named 'a'"):
        Event(parameters=("a", Parameter("a", int)))


def test_a_parameter_that_is_neither_a_name_nor_a_parameter_is_refused() -> None:
    given: Any = ["a", 3]

    with pytest.raises(ApiError, match="3 is not a parameter of an event"):
        Event(parameters=given)


def test_defaults_replace_missing_arguments() -> None:
    event = Event(parameters=("a", Parameter("b", int, default=7), Parameter("c", int | None)))

    assert event.arguments("x.y", {"a": 1}) == {"a": 1, "b": 7, "c": None}
    assert event.arguments("x.y", {"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}


def test_all_missing_and_unexpected_arguments_are_named_at_once() -> None:
    event = Event(parameters=("a", "b", "c"))

    with pytest.raises(InvalidEventArguments) as raised:
        event.arguments("x.y", {"b": 1, "d": 2, "e": 3})

    assert (raised.value.missing, raised.value.unexpected) == (("a", "c"), ("d", "e"))
    assert "Event x.y" in str(raised.value)
    assert "missing 'a', 'c'; unexpected 'd', 'e'" in str(raised.value)


def test_an_unexpected_argument_is_refused_even_if_a_default_completes_the_arguments() -> None:
    event = Event(parameters=("a", Parameter("b", int, default=0)))

    with pytest.raises(InvalidEventArguments) as raised:
        event.arguments("x.y", {"a": 1, "c": 2})

    assert raised.value.unexpected == ("c",)


def test_a_wildcard_accepts_other_arguments_and_still_requires_the_named_ones() -> None:
    event = Event(parameters=("a", WildcardParameter()))

    assert event.arguments("x.y", {"a": 1, "z": 2}) == {"a": 1, "z": 2}
    with pytest.raises(InvalidEventArguments, match="missing 'a'"):
        event.arguments("x.y", {"z": 2})
