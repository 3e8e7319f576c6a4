from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional

import attrs
import msgspec
import pydantic
import pytest

from core.support import MakeBus, Received
from lightbus import Api, Bus, Event, EventMessage, Parameter, Worker, event
from lightbus.encoding.json_codec import FieldsDecoder, encode
from lightbus.exceptions import (
    EventNotFound,
    InvalidApi,
    InvalidEventArguments,
    InvalidParameters,
    NotOnBus,
    UnfitEvent,
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
        (_takes_by_position_only, "its parameter 'number' cannot be given by name"),
        (_takes_more, "its parameter 'numbers' cannot be given by name"),
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


async def test_values_are_not_looked_at_where_the_configuration_says_so(make_bus: MakeBus) -> None:
    bus = make_bus(TypedApi, validate=False)
    assert (await bus.typed.sold.fire_async(number="7")).kwargs["number"] == "7"


@pytest.mark.parametrize("cast_values", [False, "off"])
async def test_handlers_get_what_json_has_where_the_configuration_says_so(
    make_bus: MakeBus, received: Received, cast_values: Any
) -> None:
    def handle(number: str, at: datetime) -> None:
        received.add((number, at))

    bus = make_bus(TypedApi, cast_values=cast_values)
    bus.typed.sold.listen(handle, listener_name="sold")
    async with Worker(bus):
        await bus.typed.sold.fire_async(number=1, at=datetime(2026, 1, 2, tzinfo=UTC))
        assert await received.next() == (1, "2026-01-02T00:00:00Z")


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields that Lightbus gave a log record."""
    fields: dict[str, Any] = getattr(record, "lightbus", {})
    return fields


class LaxApi(Api):
    sold = Event(parameters=("number", "is_new", "text", "lines"))

    class Meta:
        name = "lax"


@dataclasses.dataclass
class Line:
    name: str
    count: int


@pytest.mark.parametrize(
    ("cast_values", "got"),
    [("lax", [7, True, "1.5", [Line("3", 4)]]), ("strict", None), (True, None)],
)
def test_text_does_for_numbers_and_numbers_do_for_text_where_the_configuration_says_so(
    make_bus: MakeBus, cast_values: Any, got: Any
) -> None:
    def handle(*, number: int, is_new: bool, text: str, lines: list[Line]) -> None: ...

    bus = make_bus(LaxApi, cast_values=cast_values)
    plan = bus.client.plan_call(handle, "lax", "sold")
    message = bus.client.message(
        "lax",
        "sold",
        {"number": "7", "is_new": "true", "text": 1.5, "lines": [{"name": 3, "count": "4"}]},
    )

    if got is None:
        with pytest.raises(UnfitEvent):
            plan.arguments(message)
    else:
        assert list(plan.arguments(message)[1].values()) == got


@pytest.mark.parametrize(
    ("hint", "value", "got"),
    [
        (Annotated[str, msgspec.Meta(max_length=3)], 12, "12"),
        (str | None, 12, "12"),
        (str | int, 12, 12),
        (int | None, "12", 12),
        (dict[str, str], {"a": 1}, {"a": "1"}),
        (list[float], ["1.5", 2], [1.5, 2.0]),
        (Literal["a"], "a", "a"),
    ],
    ids=str,
)
def test_lax_casting_reaches_into_other_hints(hint: Any, value: Any, got: Any) -> None:
    decoder = FieldsDecoder({"value": hint}, keeps_others=False, is_lax=True)
    assert decoder.unsupported == ()
    assert decoder.decode(encode({"value": value})) == {"value": got}


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Annotated[str, msgspec.Meta(max_length=1)], 12),
        (int, "many"),
        (bool, "perhaps"),
        (str, True),
        (str, [1]),
        (datetime, "now"),
    ],
)
def test_what_is_no_number_or_text_does_not_fit_where_casting_is_lax_either(
    make_bus: MakeBus, hint: Any, value: Any
) -> None:
    def handle(number: Any) -> None: ...

    handle.__annotations__["number"] = hint
    bus = make_bus(LaxApi, cast_values="lax")
    message = bus.client.message(
        "lax", "sold", {"number": value, "is_new": True, "text": "", "lines": []}
    )
    with pytest.raises(UnfitEvent):
        bus.client.plan_call(handle, "lax", "sold").arguments(message)


@dataclasses.dataclass
class ByCard:
    number: str


@dataclasses.dataclass
class ByCash:
    amount: int


@dataclasses.dataclass
class Payment:
    at: datetime
    by: ByCard | ByCash


class PaidApi(Api):
    paid = Event([Parameter("payments", list[Payment])])

    class Meta:
        name = "paid"


def test_a_field_whose_type_is_not_checked_is_named_once_when_its_api_is_registered(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus = make_bus(PaidApi)
    bus.client.register_api(PaidApi)

    (warning,) = caplog.records
    assert "without a check of its type" in warning.getMessage()
    fields = fields_of(warning)
    assert (fields["api"], fields["event_name"]) == ("paid", "paid")
    assert fields["place"] == "$.payments[...].by"
    assert "ByCard | core.test_events.ByCash" in fields["reason"]


@pytest.mark.parametrize(
    ("hint", "place"),
    [(list[Payment], "$.payments[...].by"), ("NotImportable", "$.payments")],
    ids=str,
)
async def test_a_field_that_a_listener_gets_as_json_has_it_is_named_once_when_it_is_added(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, hint: Any, place: str
) -> None:
    def handle(payments: Any) -> None: ...

    handle.__annotations__["payments"] = hint
    bus = make_bus()
    bus.client.listen_for_event("paid", "paid", handle, listener_name="ledger")
    async with Worker(bus):
        pass

    (warning,) = [r for r in caplog.records if "as JSON has it" in r.getMessage()]
    fields = fields_of(warning)
    assert (fields["listener"], fields["event_name"], fields["place"]) == ("ledger", "paid", place)


@pytest.mark.parametrize("cast_values", ["off", False])
def test_nothing_is_said_of_hints_that_no_values_are_made_for(
    make_bus: MakeBus, caplog: pytest.LogCaptureFixture, cast_values: Any
) -> None:
    def handle(payments: list[Payment]) -> None: ...

    bus = make_bus(PaidApi, cast_values=cast_values, validate=False)
    bus.paid.paid.listen(handle, listener_name="ledger")
    assert caplog.records == []


# What a class or a name cannot be


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


async def test_what_a_model_admits_beyond_its_fields_travels(make_bus: MakeBus) -> None:
    message = await make_bus(ModelApi).models.more.fire_async(number=1, more=2)
    assert message.kwargs == {"number": 1, "more": 2}


async def test_what_a_model_refuses_is_told_without_the_value(make_bus: MakeBus) -> None:
    with pytest.raises(InvalidEventArguments) as raised:
        await make_bus(ModelApi).models.aliased.fire_async(userName="pw")
    assert raised.value.reason == (
        "Aliased does not take them: userName: String should have at least 3 characters"
    )


class Secret(enum.Enum):
    KNOWN = "known"


async def test_an_unknown_value_of_an_enum_is_not_told(make_bus: MakeBus) -> None:
    class SecretApi(Api):
        told = Event([Parameter("secret", Secret)])

        class Meta:
            name = "secrets"

    with pytest.raises(InvalidEventArguments) as raised:
        await make_bus(SecretApi).secrets.told.fire_async(secret="hunter2 - at `x")
    assert raised.value.reason.endswith(" at `$.secret`")
    assert "hunter2" not in raised.value.reason


@dataclasses.dataclass
class WithInitVar:
    name: str
    password: dataclasses.InitVar[str]

    def __post_init__(self, password: str) -> None: ...


class Plain:
    """A class without fields that anyone could know."""

    def __init__(self, number: int) -> None:
        self.number = number


def test_a_class_that_takes_what_is_no_field_is_refused(make_bus: MakeBus) -> None:
    class WrongApi(Api):
        wrong = Event(WithInitVar)

        class Meta:
            name = "wrong"

    with pytest.raises(InvalidApi, match="it takes 'password', and has no such field"):
        make_bus(WrongApi)


async def test_a_plain_class_declares_an_event_by_what_it_is_made_of(make_bus: MakeBus) -> None:
    class PlainApi(Api):
        plain = Event(Plain)

        class Meta:
            name = "plain"

    bus = make_bus(PlainApi)
    assert (await bus.plain.plain.fire_async(number=1)).kwargs == {"number": 1}
    with pytest.raises(InvalidEventArguments, match=r"at `\$\.number`"):
        await bus.plain.plain.fire_async(number="1")


def test_one_event_under_two_names_is_refused() -> None:
    with pytest.raises(InvalidApi, match="user_added is the same object as event 'user_created'"):

        class TwiceApi(Api):
            user_created = Event("username")
            user_added = user_created

            class Meta:
                name = "twice"

    with pytest.raises(InvalidApi, match="paid_again is the same object as event 'paid'"):

        class OtherApi(Api):
            paid_again = ShopApi.paid

            class Meta:
                name = "other"


def test_an_event_that_a_derived_api_takes_away_is_none_of_it() -> None:
    class Later(ShopApi):
        paid = None  # type: ignore[assignment]

        class Meta:
            name = "later"

    assert "paid" not in Later.events
    assert "paid" in ShopApi.events


@pytest.mark.parametrize("name", ["fire", "listen", "event", "on_bus", "_private"])
def test_an_event_can_not_have_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(InvalidApi, match=f"an event named '{name}'"):
        type("SomeApi", (Api,), {name: Event(), "Meta": type("Meta", (), {"name": "a"})})


@pytest.mark.parametrize("name", ["client", "schema", "schema.v1"])
def test_an_api_can_not_have_a_name_that_a_bus_has_itself(name: str) -> None:
    with pytest.raises(InvalidApi, match=f"cannot be named '{name}'"):
        type("SomeApi", (Api,), {"Meta": type("Meta", (), {"name": name})})


def test_a_method_without_self_is_refused(make_bus: MakeBus) -> None:
    class WrongApi(Api):
        @event  # type: ignore[arg-type]
        def wrong(*, username: str, email: str) -> None: ...

        class Meta:
            name = "wrong"

    with pytest.raises(InvalidApi, match="its first parameter must be self"):
        make_bus(WrongApi)


async def test_a_parameter_may_be_called_self(make_bus: MakeBus) -> None:
    class SelfApi(Api):
        told = Event(("self",))

        class Meta:
            name = "selves"

    assert (await make_bus(SelfApi).selves.told.fire_async(self=1)).kwargs == {"self": 1}


@pytest.mark.parametrize(
    "hint",
    [
        Annotated[str | None, "doc"],
        Literal["a", None],  # noqa: PYI061
        Optional[int],  # noqa: UP045
        type(None),
    ],
    ids=str,
)
def test_a_type_that_admits_none_is_not_required(hint: Any) -> None:
    assert Parameter("x", hint).default is None
