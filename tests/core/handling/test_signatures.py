"""What a handler is called with."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import attrs
import msgspec
import pytest

import lightbus
from lightbus import EventMessage
from lightbus.encoding.json_codec import encode
from lightbus.exceptions import InvalidEventListener, UnfitEvent
from lightbus.handling.calling import is_async, name_of
from lightbus.handling.signatures import plan_call

FIELDS = {"username": "ann", "email": "a@b"}

Call = tuple[tuple[Any, ...], dict[str, Any]]


MESSAGE = EventMessage.create("auth", "user_created", FIELDS)


def message_of(fields: dict[str, Any]) -> EventMessage:
    return attrs.evolve(MESSAGE, body=encode(fields))


def called(
    handler: Callable[..., Any], *, fields: dict[str, Any] = FIELDS, is_known: bool = True
) -> Any:
    """Call `handler` as a delivery of these fields would."""
    plan = plan_call(handler, "auth.user_created", tuple(fields) if is_known else None)
    args, kwargs = plan.arguments(message_of(fields))
    return handler(*args, **kwargs)


class Methods:
    """Handlers that are no plain functions."""

    def bound(self, username: str) -> Call:
        return (username,), {}

    @classmethod
    def of_class(cls, username: str) -> Call:
        return (username,), {}

    @staticmethod
    def static(username: str) -> Call:
        return (username,), {}

    def __call__(self, username: str) -> Call:
        return (username,), {}


def with_prefix(prefix: str, username: str) -> Call:
    return (username,), {}


def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


# Fields


def test_fields_are_given_by_name_and_the_rest_is_dropped() -> None:
    assert called(lambda email: email) == "a@b"
    assert called(lambda: "nothing") == "nothing"
    assert called(lambda *, username: username) == "ann"
    assert called(lambda email, username: (email, username)) == ("a@b", "ann")


def test_a_handler_may_take_all_fields() -> None:
    assert called(lambda **fields: fields) == FIELDS
    assert called(lambda username, **others: (username, others)) == ("ann", {"email": "a@b"})


def test_a_handler_may_take_fields_by_position() -> None:
    def handler(email: str, username: str, /) -> tuple[str, str]:
        return email, username

    assert called(handler) == ("a@b", "ann")


def test_a_default_stands_in_for_a_field_that_the_event_has_not() -> None:
    assert called(lambda username, age=7: (username, age)) == ("ann", 7)


@pytest.mark.parametrize(
    "handler",
    [
        Methods().bound,
        Methods.of_class,
        Methods.static,
        Methods(),
        functools.partial(with_prefix, "Dr."),
        functools.partial(with_prefix, prefix="Dr."),
        logged(Methods().bound),
    ],
    ids=["method", "class method", "static", "callable", "partial", "keyword partial", "wrapped"],
)
def test_whatever_can_be_called_can_listen(handler: Callable[..., Any]) -> None:
    assert called(handler) == (("ann",), {})


# The message


def by_hint(first: EventMessage, email: str) -> tuple[EventMessage, str]:
    return first, email


def by_text(first: lightbus.EventMessage, email: str) -> tuple[EventMessage, str]:
    return first, email


def beside_unknown(first: EventMessage, email: NotDefined) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return first, email


@pytest.mark.parametrize("is_known", [True, False], ids=["API known", "API unknown"])
@pytest.mark.parametrize(
    "handler",
    [
        lambda event, email: (event, email),
        lambda event_message, email: (event_message, email),
        by_hint,
        by_text,
        beside_unknown,
    ],
    ids=["event", "event_message", "hint", "dotted hint", "beside an unknown hint"],
)
def test_a_first_parameter_that_asks_for_the_message_gets_it(
    handler: Callable[..., Any],
    is_known: bool,  # noqa: FBT001 - a case of the test
) -> None:
    assert called(handler, is_known=is_known) == (MESSAGE, "a@b")


def test_a_first_parameter_that_is_no_field_gets_the_message_too() -> None:
    assert called(lambda message, email: (message, email)) == (MESSAGE, "a@b")


def test_a_first_parameter_that_is_nearly_a_field_is_one_that_is_misspelt() -> None:
    with pytest.raises(InvalidEventListener, match="requires 'usernam', which event"):
        plan_call(lambda usernam, email: None, "auth.user_created", tuple(FIELDS))


def test_a_first_parameter_that_is_no_field_and_has_a_default_keeps_it() -> None:
    assert called(lambda retries=3: retries) == 3


def test_where_the_fields_are_not_known_a_first_parameter_is_a_field() -> None:
    assert called(lambda username: username, is_known=False) == "ann"


# What cannot be called


def test_a_field_that_the_event_is_known_not_to_have_is_named_at_once() -> None:
    with pytest.raises(InvalidEventListener) as raised:
        plan_call(lambda username, phone, fax: None, "auth.user_created", tuple(FIELDS))

    assert "requires 'phone', 'fax', which event auth.user_created does not have" in str(
        raised.value
    )
    assert "it has 'username', 'email'" in str(raised.value)


def test_a_field_that_turns_out_to_be_missing_is_named_on_delivery() -> None:
    plan = plan_call(lambda username, email: None, "auth.user_deleted", None)

    with pytest.raises(InvalidEventListener, match=r"requires 'email'.*it has 'username'"):
        plan.arguments(message_of({"username": "ann"}))


@pytest.mark.parametrize("handler", [None, "handle", 3])
def test_what_is_not_callable_is_refused(handler: Any) -> None:
    with pytest.raises(InvalidEventListener, match="it is not callable"):
        plan_call(handler, "auth.user_created", None)


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(InvalidEventListener, match="its signature is not known"):
        plan_call(dict, "auth.user_created", None)


# Names and kinds


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (with_prefix, "with_prefix"),
        (functools.partial(with_prefix, "Dr."), "with_prefix"),
        (Methods().bound, "bound"),
        (Methods(), "Methods"),
    ],
    ids=["function", "partial", "method", "callable"],
)
def test_a_handler_has_a_name_for_people(handler: Callable[..., Any], name: str) -> None:
    assert name_of(handler) == name


class AsyncCallable:
    """Async when called."""

    async def __call__(self, username: str) -> None: ...

    async def method(self, username: str) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [AsyncCallable(), AsyncCallable().method, functools.partial(AsyncCallable().method, "ann")],
    ids=["callable", "method", "partial"],
)
def test_what_makes_a_coroutine_is_async(handler: Callable[..., Any]) -> None:
    assert is_async(handler)


@pytest.mark.parametrize("handler", [with_prefix, Methods(), AsyncCallable])
def test_what_makes_none_is_not(handler: Callable[..., Any]) -> None:
    assert not is_async(handler)


def test_a_field_of_the_name_under_which_the_message_is_taken_is_dropped() -> None:
    def handler(event: EventMessage, **fields: Any) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    message = message_of({"event": 1, "email": 2})
    assert plan.arguments(message) == ([message], {"email": 2})


def test_what_an_event_has_instead_is_named_up_to_a_limit() -> None:
    def handler(username: str) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(InvalidEventListener, match="99,980 more") as raised:
        plan.arguments(message_of({f"{number}{'x' * 1_000}": 1 for number in range(100_000)}))
    assert len(str(raised.value)) < 5_000


# Types


@dataclasses.dataclass
class Address:
    street: str
    since: date


@dataclasses.dataclass
class Dated:
    """A handler with attributes of its own."""

    name: str

    def __call__(self, at: datetime) -> datetime:
        return at


class Unknown:
    """What JSON holds nothing of."""


JANE = {
    "number": uuid.UUID("6f9619ff-8b86-4011-b42d-00c04fc964ff"),
    "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "address": Address("High Street", date(2020, 5, 6)),
    "tags": {"new", "paid"},
    "total": Decimal("12.50"),
    "count": 3,
}
RAW = {
    "number": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
    "at": "2026-01-02T03:04:05Z",
    "address": {"street": "High Street", "since": "2020-05-06"},
    "total": "12.50",
    "count": 3,
}


def typed(
    number: uuid.UUID,
    at: datetime,
    *,
    address: Address,
    tags: set[str],
    total: Decimal,
    count: int,
) -> dict[str, Any]:
    return dict(locals())


def typed_with_others(number: uuid.UUID, at: datetime, **others: Any) -> dict[str, Any]:
    return {"number": number, "at": at, **others}


def test_a_handler_gets_the_types_that_its_hints_say() -> None:
    assert called(typed, fields=JANE) == JANE


def test_fields_of_no_parameter_stay_as_json_has_them() -> None:
    got = called(typed_with_others, fields=JANE)

    assert sorted(got.pop("tags")) == ["new", "paid"]
    assert got == {**RAW, "number": JANE["number"], "at": JANE["at"]}


def test_without_hints_a_handler_gets_what_json_has() -> None:
    assert called(lambda number, at: (number, at), fields=JANE) == (RAW["number"], RAW["at"])


def test_a_default_of_none_admits_null() -> None:
    def handler(count: int = None) -> int | None:  # type: ignore[assignment]  # noqa: RUF013
        return count

    assert called(handler, fields={"count": None}) is None
    assert called(handler, fields={}) is None


@pytest.mark.parametrize(
    "hint",
    [
        Unknown,
        int | datetime | str | uuid.UUID,
        Callable[..., Any],
        "NotImportable",
        "not a type",
        Final[int],
        any,
        3,
    ],
    ids=str,
)
@pytest.mark.parametrize("default", [inspect.Parameter.empty, None])
def test_a_hint_that_json_has_nothing_for_leaves_the_value_as_it_is(
    hint: Any, default: Any
) -> None:
    def handler(count: Any, at: Any) -> Any:
        return at, count

    handler.__annotations__ = {"at": hint, "count": "int"}
    if default is None:
        handler.__defaults__ = (None,)

    assert called(handler, fields={"at": "2026", "count": 3}) == ("2026", 3)


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"count": "many"}, "$.count"),
        ({"address": {"street": 1, "since": "2020-05-06"}}, "$.address.street"),
        ({"address": {}}, "$.address"),
        ({"number": "me"}, "$.number"),
    ],
    ids=["number", "nested", "missing", "uuid"],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(
    changed: dict[str, Any], path: str
) -> None:
    plan = plan_call(typed, "auth.user_created", None)
    said = rf"user_created does not fit .* typed\(\): .* at `{re.escape(path)}`"

    with pytest.raises(UnfitEvent, match=said):
        plan.arguments(message_of({**JANE, **changed}))


class Colour(enum.Enum):
    RED = "red"


class Cat(msgspec.Struct, tag="cat"):
    name: str


class Dog(msgspec.Struct, tag="dog"):
    name: str


@pytest.mark.parametrize(
    ("hint", "value"), [(Colour, "hunter2"), (Cat | Dog, {"type": "hunter2", "name": "x"})]
)
def test_a_value_that_does_not_fit_is_in_no_traceback(hint: Any, value: Any) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = hint
    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.value") as raised:
        plan.arguments(message_of({"value": value}))
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_what_a_users_class_refuses_does_not_fit() -> None:
    def handler(tags: set[Any]) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent) as raised:
        plan.arguments(message_of({"tags": [[1]]}))
    assert raised.value.reason


@pytest.mark.parametrize("handler", [Dated("a"), functools.partial(Dated("a"))])
def test_an_object_that_is_called_has_hints_too(handler: Any) -> None:
    assert called(handler, fields=JANE) == JANE["at"]


def on(day: str, at: datetime) -> datetime:
    return at


@attrs.define
class Visit:
    at: datetime


@dataclasses.dataclass
class Stay(Visit):
    at: datetime


class Meeting:
    def __init__(self, at: datetime) -> None:
        self.at = at


@pytest.mark.parametrize(
    "handler",
    [
        logged(functools.partial(on, "monday")),
        logged(logged(functools.partial(logged(on), "monday"))),
        functools.partial(logged(functools.partial(on)), "monday"),
        logged(Dated("a")),
        logged(functools.partial(Dated("a"))),
        Visit,
        logged(Visit),
        logged(Stay),
        logged(Meeting),
        functools.partial(logged(Meeting)),
        logged(functools.partial(Meeting)),
    ],
)
def test_a_decorator_hides_no_hints(handler: Any) -> None:
    got = called(handler, fields={"at": JANE["at"]})

    assert getattr(got, "at", got) == JANE["at"]


@pytest.mark.parametrize(("hint", "value"), [(int | None, "null"), (float, "nan"), (int, "3")])
def test_text_is_no_number_and_no_null(hint: Any, value: str) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__ = {"value": hint}
    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.value`"):
        plan.arguments(message_of({"value": value}))


def test_digits_of_decimals_are_kept_beside_other_fields() -> None:
    def handler(total: Decimal, **others: Any) -> Any:
        return total, others

    plan = plan_call(handler, "auth.user_created", None)
    args, kwargs = plan.arguments(attrs.evolve(MESSAGE, body=b'{"total": 1.10, "tax": 2}'))

    assert str(kwargs.pop("total")) == "1.10"
    assert (args, kwargs) == ([], {"tax": 2})


def test_a_value_that_does_not_fit_is_named_beside_others_too() -> None:
    plan = plan_call(typed_with_others, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.number`"):
        plan.arguments(message_of({**JANE, "number": "me"}))
