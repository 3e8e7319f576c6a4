"""Values to JSON and back."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.encoding.json_codec import decode, encode
from lightbus.exceptions import UndecodableEvent, UnencodableValue

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Unknown:
    """What no encoder knows."""


@given(st.dictionaries(st.text("abcdef"), JSON_VALUES, max_size=5))
def test_decoded_json_values_equal_the_encoded_ones(values: dict[str, Any]) -> None:
    assert decode(encode(values)) == values


@given(st.binary())
def test_any_bytes_are_decoded_or_raise_an_error_of_lightbus(body: bytes) -> None:
    with contextlib.suppress(UndecodableEvent):
        assert isinstance(decode(body), dict)


@pytest.mark.parametrize(
    ("value", "travels_as"),
    [
        (datetime(2026, 11, 24, 12, tzinfo=UTC), "2026-11-24T12:00:00Z"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Point(1, 2.5), {"x": 1, "y": 2.5}),
        ({"b"}, ["b"]),
        ((1, "a"), [1, "a"]),
        (b"\x00\xff", "AP8="),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_common_types_are_encoded_as_plain_json(value: object, travels_as: object) -> None:
    assert decode(encode({"value": value})) == {"value": travels_as}


@pytest.mark.parametrize(
    "value",
    [Unknown(), [Unknown()], {"a": Unknown()}, object, {(1, 2): 3}, "\ud800"],
    ids=["object", "in a list", "in a dict", "class", "key", "lone surrogate"],
)
def test_a_value_that_cannot_be_encoded_is_named_with_its_type(value: object) -> None:
    with pytest.raises(UnencodableValue) as raised:
        encode({"fine": 1, "odd": value})

    assert raised.value.argument == "odd"
    assert raised.value.value_type is type(value)
    assert f"'odd' of type {type(value).__qualname__} " in str(raised.value)


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(UnencodableValue, match="'odd' of type list"):
        encode({"odd": endless})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrapped",
    [lambda x: x, lambda x: [x], lambda x: {"a": {"b": (x,)}}, lambda x: Point(1, x)],
    ids=["plain", "in a list", "deep", "in a dataclass"],
)
def test_numbers_that_are_not_finite_are_refused_and_not_sent_as_null(
    wrapped: Any, number: float
) -> None:
    with pytest.raises(UnencodableValue, match=r"'odd'.*no NaN and no infinity"):
        encode({"null": None, "odd": wrapped(number)})


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[1]", b'"text"', b"{", b'{"a": nan}', b'{"a"', b"\xff", b'{"a":' * 50_000],
    ids=["empty", "null", "list", "text", "brace", "nan", "cut", "no UTF-8", "deep"],
)
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(UndecodableEvent, match="not a JSON object"):
        decode(body)
