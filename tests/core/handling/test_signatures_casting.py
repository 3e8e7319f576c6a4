"""How the setting `cast_values` converts the values that a handler receives."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest

from core.support import MakeBus, Received
from lightbus import Api, Event, Parameter, Worker, event
from lightbus.encoding.json_codec import FieldsDecoder, encode
from lightbus.exceptions import (
    UnfitEvent,
)


class TypedApi(Api):
    @event
    def sold(self, *, number: int, at: datetime | None = None, note: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    weighed = Event(parameters=("what", Parameter("grams", int)))

    class Meta:
        name = "typed"


@pytest.mark.parametrize("cast_values", [False, "off"])
async def test_without_casting_handlers_receive_json_values(
    make_bus: MakeBus, received: Received, cast_values: Any
) -> None:
    def handle(number: str, at: datetime) -> None:
        received.add((number, at))

    bus = make_bus(TypedApi, cast_values=cast_values)
    bus.typed.sold.listen(handle, listener_name="sold")
    async with Worker(bus):
        await bus.typed.sold.fire_async(number=1, at=datetime(2026, 1, 2, tzinfo=UTC))
        assert await received.next() == (1, "2026-01-02T00:00:00Z")


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
def test_lax_casting_accepts_text_for_numbers_and_numbers_for_text(
    make_bus: MakeBus, cast_values: Any, got: Any
) -> None:
    def handle(*, number: int, is_new: bool, text: str, lines: list[Line]) -> None: ...

    bus = make_bus(LaxApi, cast_values=cast_values)
    plan = bus.client.listeners.plan_call(handle, "lax", "sold")
    message = bus.client.publisher.message(
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
def test_lax_casting_refuses_values_of_other_types(
    make_bus: MakeBus, hint: Any, value: Any
) -> None:
    def handle(number: Any) -> None: ...

    handle.__annotations__["number"] = hint
    bus = make_bus(LaxApi, cast_values="lax")
    message = bus.client.publisher.message(
        "lax", "sold", {"number": value, "is_new": True, "text": "", "lines": []}
    )
    with pytest.raises(UnfitEvent):
        bus.client.listeners.plan_call(handle, "lax", "sold").arguments(message)
