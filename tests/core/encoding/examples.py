"""Types of users and libraries, with random values of each."""

from __future__ import annotations

import collections
import dataclasses
import enum
import ipaddress
import pathlib
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
from hypothesis import strategies as st

Item = TypeVar("Item")


class SafeText(str):
    """Text of a library's."""

    __slots__ = ()


class Meters(float):
    """As numpy's are."""


class Count(int):
    """A number of a library's."""


class Blob(bytes):
    """Bytes of a library's."""


class Amount(Decimal):
    """A decimal of a library's."""


class Moment(datetime):
    """A datetime of a library's, as a frozen one is."""


class Day(date):
    """A date of a library's."""


class Hour(time):
    """A time of a library's."""


class Span(timedelta):
    """A duration of a library's."""


class Mixed(enum.Enum):
    TEXT = "1"
    NUMBER = 1
    FRACTION = 1.5
    PAIR = (1, 2)


class Place(NamedTuple):
    x: int
    name: str = None  # type: ignore[assignment]


@dataclasses.dataclass
class Note:
    place: Place
    note: str = None  # type: ignore[assignment]
    also: list[Note] = dataclasses.field(default_factory=list)


@attrs.define
class Owner:
    _notes: dict[str, Note]
    name: str = None  # type: ignore[assignment]
    tags: list[str] = attrs.field(factory=list)


class Ticket(msgspec.Struct, rename="camel", tag="ticket", forbid_unknown_fields=True):
    the_owner: Owner
    the_note: str = None  # type: ignore[assignment]


class Row(msgspec.Struct, array_like=True):
    place: Place
    note: str = None  # type: ignore[assignment]


class Perhaps(msgspec.Struct):
    place: Place | msgspec.UnsetType = msgspec.UNSET
    note: str | msgspec.UnsetType | None = msgspec.UNSET


@dataclasses.dataclass
class Box(Generic[Item]):
    item: Item
    note: str = None  # type: ignore[assignment]


@pydantic.dataclasses.dataclass
class Signed:
    data: bytes
    span: timedelta


class Renamed(pydantic.BaseModel):
    user_name: str = pydantic.Field(serialization_alias="userName")
    email: str = pydantic.Field(default="", validation_alias=pydantic.AliasChoices("mail", "eMail"))
    data: bytes = b""


class Outer(pydantic.BaseModel):
    inner: list[Renamed]
    note: str = None  # type: ignore[assignment]
    notes: dict[str, Noted] = {}


@dataclasses.dataclass
class Inner:
    signed: Remark
    note: str = None  # type: ignore[assignment]


@pydantic.dataclasses.dataclass
class Remark:
    note: str = None  # type: ignore[assignment]


class OfOthers(pydantic.BaseModel):
    inner: list[Inner]


class Noted(pydantic.BaseModel):
    note: str = pydantic.Field(default=None, alias="theNote")  # type: ignore[assignment]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


INTEGERS = st.integers(-(2**53), 2**53)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


PLACES = st.builds(Place, x=INTEGERS, name=st.none() | TEXT)


NOTES = st.builds(Note, place=PLACES, note=st.none() | TEXT, also=st.just([])) | st.builds(
    Note, place=PLACES, also=st.lists(st.builds(Note, place=PLACES), max_size=2)
)


OWNERS = st.builds(Owner, notes=st.dictionaries(TEXT, NOTES, max_size=2), name=st.none() | TEXT)


LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    SafeText: st.builds(SafeText, TEXT),
    Meters: st.builds(Meters, FINITE),
    Count: st.builds(Count, INTEGERS),
    Blob: st.builds(Blob, st.binary()),
    Amount: st.builds(Amount, st.decimals(allow_nan=False, allow_infinity=False)),
    Moment: st.builds(Moment, st.just(2026), st.just(1), st.integers(1, 31), tzinfo=st.just(UTC)),
    Day: st.builds(Day, st.just(2026), st.just(1), st.integers(1, 31)),
    Hour: st.builds(Hour, st.integers(0, 23), st.integers(0, 59)),
    Span: st.builds(Span, st.integers(-(10**6), 10**6)),
    complex: st.complex_numbers(allow_nan=False),
    pathlib.PurePosixPath: st.just(pathlib.PurePosixPath("/tmp/file")),
    ipaddress.IPv4Address: st.builds(ipaddress.IPv4Address, st.integers(0, 2**32 - 1)),
    Mixed: st.sampled_from(Mixed),
    Place: PLACES,
    Note: NOTES,
    Owner: OWNERS,
    Ticket: st.builds(Ticket, OWNERS, st.none() | TEXT),
    Row: st.builds(Row, PLACES, st.none() | TEXT),
    Perhaps: st.builds(Perhaps, place=PLACES, note=st.none() | TEXT) | st.just(Perhaps()),
    Box[int]: st.builds(Box, INTEGERS, st.none() | TEXT),
    Signed: st.builds(Signed, st.binary(max_size=0) | st.just(b"abcd"), st.timedeltas()),
    Renamed: st.builds(
        lambda name, mail, data: Renamed.model_validate(
            {"user_name": name, "mail": mail, "data": data}
        ),
        TEXT,
        TEXT,
        TEXT.map(str.encode),
    ),
    Outer: st.builds(
        lambda name: Outer(inner=[Renamed(user_name=name)], notes={"a": Noted()}), TEXT
    ),
    OfOthers: st.builds(lambda note: OfOthers(inner=[Inner(Remark(note))]), TEXT)
    | st.just(OfOthers(inner=[Inner(Remark())])),
    collections.OrderedDict[str, Place]: st.dictionaries(TEXT, PLACES).map(collections.OrderedDict),
    collections.deque[Place]: st.lists(PLACES).map(collections.deque),
}
