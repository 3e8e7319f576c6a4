"""Values of users' classes are encoded, and decoded by type hints."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Self,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus.encoding.json_codec import FieldsDecoder, decode, encode
from lightbus.exceptions import UnencodableValue


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Place(NamedTuple):
    x: int
    y: float


class Labels(TypedDict):
    title: str
    note: NotRequired[str]


@dataclasses.dataclass(frozen=True)
class Street:
    name: str
    number: int | None


@attrs.frozen
class Person:
    name: str
    born: date
    streets: tuple[Street, ...] = ()


class Item(msgspec.Struct, frozen=True):
    sku: UUID
    price: Decimal


class Model(pydantic.BaseModel):
    at: datetime
    colours: list[Colour] = []


@dataclasses.dataclass(frozen=True)
class Money:
    """A class that the codec knows, with a form of its own."""

    cents: int

    def __to_bus__(self) -> str:
        return f"{self.cents / 100:.2f}"

    @classmethod
    def __from_bus__(cls, value: str) -> Self:
        return cls(round(float(value) * 100))


class Temperature:
    """A class that the codec does not know."""

    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Temperature) and other.kelvin == self.kelvin

    def __hash__(self) -> int:
        return hash(self.kelvin)

    def __to_bus__(self) -> Mapping[str, float]:
        return {"kelvin": self.kelvin}

    @classmethod
    def __from_bus__(cls, value: Any) -> Self:
        return cls(value["kelvin"])


@attrs.define
class Login:
    name: str
    _token: str = "none"


class Strict(pydantic.BaseModel, strict=True, extra="forbid"):
    at: datetime
    tags: set[str] = set()
    user_name: str = pydantic.Field(default="", alias="userName")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def year(self) -> int:
        return self.at.year


Number = TypeVar("Number")


class Holder(Generic[Number]):
    """A generic class that makes itself again."""

    def __init__(self, held: Number) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Holder) and other.held == self.held

    def __hash__(self) -> int:
        return hash(self.held)

    def __to_bus__(self) -> Any:
        return self.held

    @classmethod
    def __from_bus__(cls, value: Any) -> Self:
        return cls(value)


Price = NewType("Price", Money)


@attrs.frozen
class Order:
    total: Temperature
    colour: Colour


AWARE = st.datetimes(timezones=st.just(UTC))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FINITE = st.floats(allow_nan=False, allow_infinity=False)
STREETS = st.builds(Street, name=TEXT, number=st.none() | st.integers(0, 2**53))
VALUES = {
    AWARE: datetime,
    st.dates(): date,
    st.times(): time,
    st.timedeltas(timedelta(-1000), timedelta(1000)): timedelta,
    st.uuids(): UUID,
    st.decimals(allow_nan=False, allow_infinity=False): Decimal,
    st.binary(): bytes,
    st.sets(st.integers(-(2**53), 2**53)): set[int],
    st.frozensets(TEXT): frozenset[str],
    st.sampled_from(Colour): Colour,
    st.sampled_from(Size): Size,
    st.sampled_from(["a", "b"]): Literal["a", "b"],
    st.builds(Place, x=st.integers(-(2**53), 2**53), y=FINITE): Place,
    st.fixed_dictionaries({"title": TEXT}, optional={"note": TEXT}): Labels,
    STREETS: Street,
    st.builds(Person, name=TEXT, born=st.dates(), streets=st.lists(STREETS).map(tuple)): Person,
    st.builds(Item, sku=st.uuids(), price=st.decimals(allow_nan=False, allow_infinity=False)): Item,
    st.builds(Model, at=AWARE, colours=st.lists(st.sampled_from(Colour))): Model,
    st.builds(Money, cents=st.integers(-(10**9), 10**9)): Money,
    st.lists(st.builds(Money, cents=st.integers(0, 10**6))): list[Money],
    st.none() | st.builds(Money, cents=st.integers(0, 10**6)): Money | None,
    st.dictionaries(TEXT, st.builds(Money, cents=st.integers(0, 99))): dict[str, Money],
    st.builds(Temperature, FINITE): Temperature,
    st.lists(st.builds(Temperature, FINITE)).map(tuple): tuple[Temperature, ...],
    st.builds(Login, name=TEXT, token=TEXT): Login,
    st.lists(st.builds(Login, name=TEXT, token=TEXT)): list[Login],
    st.builds(Strict, at=AWARE, tags=st.sets(TEXT), userName=TEXT): Strict,
    st.builds(Holder, st.integers(0, 99)): Holder[int],
    st.builds(Money, cents=st.integers(0, 99)).map(Price): Price,
    st.builds(Order, total=st.builds(Temperature, FINITE), colour=st.sampled_from(Colour)): Order,
}


def back_and_forth(value: object, hint: Any) -> Any:
    return FieldsDecoder({"value": hint}, keeps_others=False).decode(encode({"value": value}))[
        "value"
    ]


@pytest.mark.parametrize(
    ("strategy", "hint"), VALUES.items(), ids=[str(v) for v in VALUES.values()]
)
def test_a_decoded_value_equals_the_encoded_one(
    strategy: st.SearchStrategy[Any], hint: Any
) -> None:
    decoder = FieldsDecoder({"value": hint}, keeps_others=False)

    @settings(max_examples=50)
    @given(strategy)
    def comes_back(value: object) -> None:
        got = decoder.decode(encode({"value": value}))["value"]
        assert got == value
        assert type(got) is type(value)

    comes_back()


@pytest.mark.parametrize(
    ("value", "travels_as"),
    [
        (Money(150), "1.50"),
        ([Money(150), 1], ["1.50", 1]),
        ({"a": {"b": (Money(150),)}}, {"a": {"b": ["1.50"]}}),
        ({Money(150)}, ["1.50"]),
        (Temperature(3.0), {"kelvin": 3.0}),
        (Order(Temperature(3.0), Colour.RED), {"total": {"kelvin": 3.0}, "colour": "red"}),
        (Model(at=datetime(2026, 1, 2, tzinfo=UTC)), {"at": "2026-01-02T00:00:00Z", "colours": []}),
        (
            [Model(at=datetime(2026, 1, 2, tzinfo=UTC))],
            [{"at": "2026-01-02T00:00:00Z", "colours": []}],
        ),
    ],
    ids=repr,
)
def test_a_class_decides_how_its_values_are_encoded(value: object, travels_as: object) -> None:
    assert decode(encode({"value": value})) == {"value": travels_as}


@dataclasses.dataclass(frozen=True)
class Purse:
    money: Money
    checked: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.checked.append("made")


class Box(msgspec.Struct, rename="camel", tag="box"):
    in_it: Money


def test_nested_values_are_encoded_by_their_classes_and_stay_unchanged() -> None:
    purse, box = Purse(Money(150)), Box(Money(200))

    assert decode(encode({"purse": purse, "box": box})) == {
        "purse": {"money": "1.50", "checked": ["made"]},
        "box": {"type": "box", "inIt": "2.00"},
    }
    assert (purse.money, purse.checked, box.in_it) == (Money(150), ["made"], Money(200))


@pytest.mark.parametrize(
    "hint",
    [Sequence[Money], Annotated[list[Money], "some"], list[Money] | None, tuple[Money, ...]],
    ids=str,
)
def test_a_class_decodes_its_values_within_other_hints(hint: Any) -> None:
    assert list(back_and_forth([Money(1), Money(2)], hint)) == [Money(1), Money(2)]


class Grumpy:
    def __to_bus__(self) -> Any:
        raise AttributeError("not today")

    @classmethod
    def __from_bus__(cls, value: Any) -> Self:
        raise ValueError(f"no {value}")


def test_a_class_that_fails_to_encode_its_value_is_named() -> None:
    with pytest.raises(UnencodableValue, match=r"'odd' of type Grumpy .* not today") as raised:
        encode({"fine": 1, "odd": Grumpy()})
    assert isinstance(raised.value.__cause__, AttributeError)


class Endless:
    def __to_bus__(self) -> Self:
        return self


def test_a_class_that_encodes_its_value_as_itself_is_refused() -> None:
    with pytest.raises(UnencodableValue, match="'odd' of type Endless"):
        encode({"odd": Endless()})


@pytest.mark.parametrize(
    ("hint", "body", "said"),
    [
        (Grumpy, b'{"value": 3}', r"no 3 - at `\$.value`"),
        (list[Grumpy], b'{"value": [3]}', r"no 3 - at `\$.value\[0\]`"),
        (
            Model,
            b'{"value": {"at": "soon"}}',
            r"^at: .* - at `\$.value`",
        ),
        (Person, b'{"value": {"name": 1}}', r"at `\$\.value\.name`"),
        (Labels, b'{"value": {}}', r"`title` - at `\$\.value`"),
    ],
    ids=str,
)
def test_a_value_that_a_class_refuses_is_reported_with_its_place(
    hint: Any, body: bytes, said: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"(?s){said}"):
        FieldsDecoder({"value": hint}, keeps_others=False).decode(body)
