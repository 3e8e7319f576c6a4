"""Hints whose types the decoder cannot make by itself."""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Optional
from uuid import UUID

import jsonschema
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from core.encoding.examples import (
    LEAVES,
    Box,
    Count,
    Day,
    Mixed,
    Moment,
    Note,
    Place,
    SafeText,
    Ticket,
)
from lightbus import Api, Event, Parameter
from lightbus.encoding.custom_types import describe_error
from lightbus.encoding.json_codec import FieldsDecoder, decode, encode
from lightbus.schema.events import schema_of


def decoder_of(hint: Any) -> FieldsDecoder:
    decoder = FieldsDecoder({"value": hint}, keeps_others=False)
    assert decoder.unsupported == ()
    return decoder


def back_and_forth(value: object, hint: Any) -> Any:
    return decoder_of(hint).decode(encode({"value": value}))["value"]


@pytest.mark.parametrize("hint", LEAVES, ids=str)
def test_a_decoded_value_equals_the_encoded_one_at_every_depth(hint: Any) -> None:
    holder = dataclasses.make_dataclass("Holder", [("held", hint)])
    wrappers: list[tuple[Any, Any]] = [
        (hint, lambda value: value),
        (list[hint], lambda value: [value]),
        (dict[str, hint], lambda value: {"a": value}),
        (Optional[hint], lambda value: value),  # noqa: UP045 - no literal
        (tuple[int, hint], lambda value: (1, value)),
        (Annotated[hint, "some"], lambda value: value),
        (holder, holder),
        (list[holder], lambda value: [holder(value)]),  # type: ignore[valid-type]
    ]

    decoders = [(decoder_of(wrapped), wrap) for wrapped, wrap in wrappers]

    # Each example is checked at every depth.
    @settings(max_examples=50)
    @given(LEAVES[hint])
    def comes_back(leaf: Any) -> None:
        for decoder, wrap in decoders:
            value = wrap(leaf)
            got = decoder.decode(encode({"value": value}))["value"]
            assert got == value
            assert type(got) is type(value)

    comes_back()


@pytest.mark.parametrize("hint", LEAVES, ids=str)
def test_encoded_values_are_valid_by_the_schema_of_their_type(hint: Any) -> None:
    class ValueApi(Api):
        given = Event([Parameter("value", list[hint])])

        class Meta:
            name = "values"

    schema = msgspec.json.decode(msgspec.json.encode(schema_of([ValueApi])))
    validator = jsonschema.Draft202012Validator(schema)

    # Each example is a list of values.
    @settings(max_examples=25)
    @given(st.lists(LEAVES[hint], min_size=4, max_size=4))
    def fits(values: list[Any]) -> None:
        validator.validate({"values.given": decode(encode({"value": values}))})

    fits()
    assert schema["properties"]["values.given"]["properties"]["value"]["items"]


def test_values_are_decoded_while_a_library_freezes_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datetime.datetime", Moment)
    value = Moment(2026, 1, 2, tzinfo=UTC)

    assert back_and_forth([value], list[Moment]) == [value]
    assert type(back_and_forth(value, Moment)) is Moment


def read(hint: Any, body: bytes) -> Any:
    return FieldsDecoder({"value": hint}, keeps_others=False).decode(body)["value"]


def test_a_named_tuple_is_encoded_as_an_object_and_decoded_from_an_array_too() -> None:
    assert decode(encode({"value": [Place(1, "a")]})) == {"value": [{"x": 1, "name": "a"}]}
    assert read(Place, b'{"value": [1, "a"]}') == Place(1, "a")
    assert read(list[Place], b'{"value": [[1], {"x": 2}]}') == [Place(1), Place(2)]


@pytest.mark.parametrize(
    ("hint", "body", "said"),
    [
        (Note, b'{"value": {"place": {"x": "1"}}}', r"got `str` - at `\$\.value\.place\.x`"),
        (list[Note], b'{"value": [{}]}', r"`place` - at `\$\.value\[0\]`"),
        (Note, b'{"value": 3}', r"at `\$\.value`"),
        (Ticket, b'{"value": {"theOwner": {"_notes": {}}, "more": 1}}', r"`more` - at `\$\.value`"),
        (Mixed, b'{"value": "hunter2"}', r"^No member of Mixed has this value - at `\$\.value`$"),
        (ipaddress.IPv4Address, b'{"value": "hunter2"}', r"^Invalid IPv4Address - at `\$\.value`$"),
        (Count, b'{"value": "hunter2"}', r"at `\$\.value`"),
    ],
    ids=str,
)
def test_an_error_shows_the_whole_place_of_a_wrong_value_and_not_the_value(
    hint: Any, body: bytes, said: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as raised:
        read(hint, body)
    assert "hunter2" not in describe_error(raised.value)
    assert re.search(said, describe_error(raised.value))


class Opened(msgspec.Struct, tag=True):
    place: Place


class Closed(msgspec.Struct, tag=True):
    place: Place
    note: str = None  # type: ignore[assignment]


class Listed(msgspec.Struct, tag=True, array_like=True):
    place: Place
    note: str = None  # type: ignore[assignment]


Positive = TypeAliasType("Positive", Annotated[int, msgspec.Meta(ge=0)])
Wherever = TypeAliasType("Wherever", list[Place])


class Tags(list[Place]):
    """A container of a user's."""


class Card(pydantic.BaseModel):
    number: str


class Cash(pydantic.BaseModel):
    amount: int


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Card | Cash, Cash(amount=3)),
        (Card | Cash | None, Card(number="1")),
        (Card | Cash | None, None),
        (Card | int, 3),
        (Opened | Closed, Opened(Place(1))),
        (Opened | Closed | None, Closed(Place(1))),
        (list[Opened | Closed | str], [Closed(Place(1), "a"), "b", Opened(Place(2))]),
        (Listed, Listed(Place(1))),
        (Listed | int, Listed(Place(1))),
        (Tags, Tags([Place(1)])),
        (dict[str, Positive], {"a": 3}),
        (Annotated[datetime, {"title": "At"}], datetime(2026, 1, 2, tzinfo=UTC)),
        (list[Annotated[Place, {"title": "At"}]], [Place(1)]),
        (Box[Annotated[int, {"title": "At"}]], Box(3)),
        (Annotated[Card | Cash, {"title": "By"}], Cash(amount=3)),
        (Wherever, [Place(1)]),
        (collections.Counter[str], collections.Counter("aab")),
        (Card | int, Card(number="1")),
        (Place | int, Place(1, "a")),
        (Place | int, 3),
        (SafeText | int | None, 3),
        (SafeText | int | None, SafeText("a")),
        (Note | str, Note(Place(1))),
        (Note | str, "a"),
        (list[Note] | Note, [Note(Place(1))]),
        (dict[Mixed, int], {Mixed.TEXT: 1}),
        (dict[SafeText, int], {SafeText("a"): 1}),
        (dict[Day, int], {Day(2026, 1, 2): 1}),
        (Mapping[complex, int], {1j: 2}),
    ],
    ids=str,
)
def test_types_of_a_union_are_decoded_if_json_distinguishes_them(hint: Any, value: Any) -> None:
    got = back_and_forth(value, hint)
    assert got == value
    assert type(got) is type(value)


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
    total: Annotated[datetime, msgspec.Meta(ge=3)]
    id: UUID | str
    kinds: list[Mixed]


def test_an_unsupported_field_does_not_affect_the_others_of_its_object() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    decoder = FieldsDecoder({"payments": list[Payment], "n": int}, keeps_others=False)
    sent = Payment(at, ByCash(1), at, "a", [Mixed.NUMBER])

    (got,) = decoder.decode(encode({"payments": [sent]}))["payments"]

    assert got == Payment(at, {"amount": 1}, at, "a", [Mixed.NUMBER])  # type: ignore[arg-type]
    assert [hint.path for hint in decoder.unsupported] == [
        "$.payments[...].by",
        "$.payments[...].total",
        "$.payments[...].id",
    ]
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(b'{"payments": [{"at": 3}]}')


class Identifiers(pydantic.RootModel[list[int]]):
    """May be any kind of JSON value."""


@pytest.mark.parametrize(
    "hint",
    [Identifiers | int, SafeText | str, Note | Box[int], collections.defaultdict[str, int], "Gone"],
    ids=str,
)
def test_an_unsupported_hint_is_reported_with_the_reason(hint: Any) -> None:
    decoder = FieldsDecoder({"value": hint}, keeps_others=False)
    assert decoder.decode(b'{"value": [3]}') == {"value": [3]}
    (unsupported,) = decoder.unsupported
    assert unsupported.path == "$.value"
    assert "JSON" in unsupported.reason or "cannot be resolved" in unsupported.reason


class Unknown:
    """A class that cannot be read from JSON."""


def test_items_of_an_unsupported_type_remain_json_values() -> None:
    decoder = FieldsDecoder({"value": list[Unknown]}, keeps_others=False)
    assert decoder.decode(b'{"value": [{"a": 1}]}') == {"value": [{"a": 1}]}
    assert [hint.path for hint in decoder.unsupported] == ["$.value[...]"]
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(b'{"value": 3}')
