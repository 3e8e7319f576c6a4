"""Changes of which values a field may have, such as enums, flags and bounds."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest

from core.schema.examples import NARROWER, WIDER, Colour, changes


class Code(enum.Enum):
    LOW = 1
    HIGH = 9


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Annotated[int, msgspec.Meta(ge=1)], Literal[1, 2]),
        (Annotated[int, msgspec.Meta(gt=0, lt=10)], Code),
        (Annotated[int, msgspec.Meta(multiple_of=3)], Literal[3, 9]),
        (Annotated[str, msgspec.Meta(min_length=2, max_length=3)], Literal["ab", "abc"]),
        (Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Literal["ab"]),
        (Annotated[float, msgspec.Meta(le=9)], Code),
    ],
)
def test_enum_values_within_the_bounds_of_the_other_version_are_compatible(
    outer: Any, inner: Any
) -> None:
    assert WIDER not in "".join(changes({"x": outer}, {"x": inner}))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Annotated[int, msgspec.Meta(ge=1)], Literal[0, 1]),
        (Annotated[int, msgspec.Meta(lt=9)], Code),
        (Annotated[int, msgspec.Meta(gt=1)], Code),
        (Annotated[int, msgspec.Meta(multiple_of=3)], Code),
        (Annotated[str, msgspec.Meta(min_length=2)], Literal["a"]),
        (Annotated[str, msgspec.Meta(max_length=2)], Literal["abc"]),
        (Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Literal["ab", "A"]),
        (datetime, Literal["today"]),
        (bytes, Literal["?"]),
        (dict[Annotated[str, msgspec.Meta(max_length=2)], int], dict[Literal["abc"], int]),
    ],
)
def test_enum_values_outside_the_bounds_of_the_other_version_are_reported(
    outer: Any, inner: Any
) -> None:
    assert WIDER in "".join(changes({"x": outer}, {"x": inner}))


class CodeBefore(enum.Enum):
    LOW = 1


class OptionsBefore(enum.Flag):
    READ = 1


class Options(enum.Flag):
    READ = 1
    WRITE = 8


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (CodeBefore | float, Code | float),
        (OptionsBefore | float, Options | float),
        (Literal[1] | float, Literal[1, 9] | float),
        (Literal[1] | float, float | int),
        (dict[str, CodeBefore | float], dict[str, Code | float]),
    ],
)
def test_a_float_beside_listed_integers_accepts_no_other_integer(outer: Any, inner: Any) -> None:
    # A JSON integer is decoded as the integer type of the union.
    assert WIDER in "".join(changes({"x": outer}, {"x": inner}))


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (Code | float, CodeBefore | float),
        (Code | float, float),
        (float, Code | float),
        (int | float, Code | float),
        (str | float, Code | str),
    ],
)
def test_integers_that_a_union_accepts_are_compatible(outer: Any, inner: Any) -> None:
    assert WIDER not in "".join(changes({"x": outer}, {"x": inner}))


class May(enum.Flag):
    READ = 1
    WRITE = 4


class MayRun(enum.Flag):
    READ = 1
    RUN = 2
    WRITE = 4


def test_a_flag_with_a_new_or_removed_member_is_reported() -> None:
    assert [WIDER in change for change in changes({"x": May}, {"x": MayRun})] == [True]
    assert [NARROWER in change for change in changes({"x": MayRun}, {"x": May})] == [True]


@pytest.mark.parametrize(
    ("before", "after", "directions"),
    [
        (dict[int, int], dict[str, int], [WIDER]),
        (dict[str, int], dict[int, int], [NARROWER]),
        (dict[Colour, int], dict[str, int], [WIDER]),
        (dict[Annotated[int, msgspec.Meta(ge=0)], int], dict[int, int], [WIDER]),
        (Annotated[datetime, msgspec.Meta(tz=True)], datetime, [WIDER]),
        (Annotated[str, msgspec.Meta(max_length=1)] | str | int, str | int, [WIDER]),
        (datetime, Annotated[datetime, msgspec.Meta(tz=False)], [NARROWER]),
        (
            Annotated[bytes, msgspec.Meta(max_length=1)],
            Annotated[bytes, msgspec.Meta(max_length=2)],
            [WIDER],
        ),
    ],
    ids=str,
)
def test_properties_of_types_without_a_keyword_in_json_schema_are_compared(
    before: Any, after: Any, directions: list[str]
) -> None:
    found = changes({"x": before}, {"x": after})
    assert [next(d for d in (WIDER, NARROWER) if d in change) for change in found] == directions
