"""The types of the values that a handler receives."""

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

from core.handling.calls import MESSAGE, called, message_of
from lightbus.exceptions import UnfitEvent
from lightbus.handling.signatures import plan_call


def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


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


def test_a_handler_receives_the_types_of_its_hints() -> None:
    assert called(typed, fields=JANE) == JANE


def test_fields_without_a_parameter_remain_json_values() -> None:
    got = called(typed_with_others, fields=JANE)

    assert sorted(got.pop("tags")) == ["new", "paid"]
    assert got == {**RAW, "number": JANE["number"], "at": JANE["at"]}


def test_a_handler_without_hints_receives_json_values() -> None:
    assert called(lambda number, at: (number, at), fields=JANE) == (RAW["number"], RAW["at"])


def test_a_default_of_none_accepts_null() -> None:
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
def test_a_value_with_an_unsupported_hint_remains_a_json_value(hint: Any, default: Any) -> None:
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
def test_a_value_of_another_type_is_reported_with_its_place(
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
def test_a_value_of_another_type_is_in_no_traceback(hint: Any, value: Any) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = hint
    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.value") as raised:
        plan.arguments(message_of({"value": value}))
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_a_value_that_a_class_refuses_is_reported() -> None:
    def handler(tags: set[Any]) -> None: ...

    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent) as raised:
        plan.arguments(message_of({"tags": [[1]]}))
    assert raised.value.reason


@pytest.mark.parametrize("handler", [Dated("a"), functools.partial(Dated("a"))])
def test_the_hints_of_a_callable_object_are_used(handler: Any) -> None:
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
def test_the_hints_of_a_decorated_handler_are_used(handler: Any) -> None:
    got = called(handler, fields={"at": JANE["at"]})

    assert getattr(got, "at", got) == JANE["at"]


@pytest.mark.parametrize(("hint", "value"), [(int | None, "null"), (float, "nan"), (int, "3")])
def test_text_is_not_converted_to_a_number_or_null(hint: Any, value: str) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__ = {"value": hint}
    plan = plan_call(handler, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.value`"):
        plan.arguments(message_of({"value": value}))


def test_the_digits_of_decimals_are_kept_with_other_fields() -> None:
    def handler(total: Decimal, **others: Any) -> Any:
        return total, others

    plan = plan_call(handler, "auth.user_created", None)
    args, kwargs = plan.arguments(attrs.evolve(MESSAGE, body=b'{"total": 1.10, "tax": 2}'))

    assert str(kwargs.pop("total")) == "1.10"
    assert (args, kwargs) == ([], {"tax": 2})


def test_a_value_of_another_type_is_reported_with_other_fields() -> None:
    plan = plan_call(typed_with_others, "auth.user_created", None)

    with pytest.raises(UnfitEvent, match=r"at `\$\.number`"):
        plan.arguments(message_of({**JANE, "number": "me"}))
