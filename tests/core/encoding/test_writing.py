"""How subclasses, proxies and containers of users are encoded."""

from __future__ import annotations

import collections
import dataclasses
import enum
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from numbers import Integral
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from lightbus.encoding.json_codec import decode, encode
from lightbus.exceptions import UnencodableValue


class SafeText(str):
    """As Django's, whose `__str__` returns itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Number(int):
    """A number of a library's."""


class Real(float):
    """A number of a library's, as numpy's are."""


class Blob(bytes):
    """Bytes of a library's."""


class Whole:
    """A whole number that is no `int`, as those of numpy are."""

    def __int__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return other == int(self)

    def __hash__(self) -> int:
        return 7


Integral.register(Whole)


class Amount(Decimal):
    """A decimal of a library's."""


class FrozenMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class Moment(datetime, metaclass=FrozenMeta):
    """As a library's that freezes the time."""


class Day(date):
    """A date of a library's."""


class Hour(time):
    """A time of a library's."""


class Span(timedelta):
    """A duration of a library's."""


class Id(UUID):
    """An identifier of a database driver's."""


class LazyList(list[int]):
    """Loads its content when someone iterates over it."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


class LazyDict(dict[str, int]):
    """Loads its content when someone asks for its items."""

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])

    def __getitem__(self, key: str) -> int:
        return len(key)


class ItemsDict(dict[str, int]):
    def items(self) -> Any:
        return [("a", 1)]


class Registry(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 3

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Pages(Sequence[int]):
    def __getitem__(self, index: Any) -> Any:
        return [4, 5][index]

    def __len__(self) -> int:
        return 2


class Proxy:
    """Passes itself off as what it wraps, as proxies of libraries do."""

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "_wrapped", wrapped)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __iter__(self) -> Any:
        return iter(self._wrapped)

    def __len__(self) -> int:
        return len(self._wrapped)

    def __contains__(self, item: object) -> bool:
        return item in self._wrapped

    def __getitem__(self, key: Any) -> Any:
        return self._wrapped[key]

    def __bytes__(self) -> bytes:
        return bytes(self._wrapped)

    def __bool__(self) -> bool:
        return bool(self._wrapped)

    def __float__(self) -> float:
        return float(self._wrapped)

    def __add__(self, other: Any) -> Any:
        return self._wrapped + other

    def __str__(self) -> str:
        return str(self._wrapped)

    def __int__(self) -> int:
        return int(self._wrapped)


class Table:
    """Has the methods of a collection, and gives the names of its columns to who iterates."""

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1

    def __contains__(self, item: object) -> bool:
        return False


class Bag(Collection[int]):
    """Says that it is a collection."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 1])

    def __len__(self) -> int:
        return 2

    def __contains__(self, item: object) -> bool:
        return item == 1


class Level(str, enum.Enum):  # noqa: UP042 - as programs have it
    HIGH = "high"


@dataclasses.dataclass
class Point:
    x: Any


@attrs.define
class Login:
    _token: Any


class Holder(msgspec.Struct):
    held: Any


AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOCAL_MEAN_TIME = timezone(timedelta(minutes=53, seconds=28))
WRAPPERS: list[Any] = [
    lambda value: value,
    lambda value: [value],
    lambda value: {"a": (value,)},
    Point,
    Login,
    Holder,
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["plain", "list", "deep", "data", "attrs", "struct"])
@pytest.mark.parametrize(
    ("value", "like"),
    [
        (SafeText("a"), "a"),
        (Number(3), 3),
        (Real(1.5), 1.5),
        (Blob(b"a"), b"a"),
        (Amount("1.10"), Decimal("1.10")),
        (Moment(2026, 1, 2, 3, 4, 5, tzinfo=UTC), AT),
        (Day(2026, 1, 2), date(2026, 1, 2)),
        (Hour(1, 2), time(1, 2)),
        (Span(days=3), timedelta(days=3)),
        (Id(int=1), UUID(int=1)),
        (Level.HIGH, "high"),
        (True, True),
        (Fraction(1, 2), 0.5),
        (Whole(), 7),
        (1 + 2j, "(1+2j)"),
        (LazyList(), [1, 2]),
        (LazyDict(), {"a": 1, "b": 1}),
        (ItemsDict(), {"a": 1}),
        (Registry(), {"a": 3}),
        (Pages(), [4, 5]),
        (collections.UserDict({"a": 1}), {"a": 1}),
        (collections.UserList([1]), [1]),
        (collections.UserString("a"), "a"),
        (collections.deque([1]), [1]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        (range(2), [0, 1]),
        (Proxy([1]), [1]),
        (Proxy({"a": 1}), {"a": 1}),
        (Proxy("a"), "a"),
        (Proxy(3), 3),
        (Proxy(AT), AT),
        (Proxy(1.5), 1.5),
        (Proxy(b"a"), b"a"),
        (Proxy(False), False),  # noqa: FBT003 - a value
        (Proxy(None), None),
        (Proxy(Decimal("1.10")), Decimal("1.10")),
        (Proxy(date(2026, 1, 2)), date(2026, 1, 2)),
        (Proxy(timedelta(1)), timedelta(1)),
        (Proxy(UUID(int=1)), UUID(int=1)),
        (Proxy((1,)), [1]),
        (Bag(), [1, 1]),
        (Proxy(Point(1)), {"x": 1}),
        ({Number(1): 2, SafeText("a"): 3, Level.HIGH: 4}, {"1": 2, "a": 3, "high": 4}),
        (datetime(2026, 1, 2, 1, tzinfo=LOCAL_MEAN_TIME), "2026-01-02T00:06:32Z"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_and_proxies_are_encoded_as_their_base_type_or_items(
    wrap: Any, value: Any, like: Any
) -> None:
    assert decode(encode({"value": wrap(value)})) == decode(encode({"value": wrap(like)}))


@dataclasses.dataclass
class Both(dict[str, int]):
    """Has fields and items."""

    x: int


def with_items(both: Both) -> Both:
    both["a"] = 1
    return both


class Forgetful(list[int]):
    """Has its content where nobody who iterates finds it."""

    def __len__(self) -> int:
        return 3


class Precise(datetime):
    """Has more digits than a datetime, as those of data frames."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Precise)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return super().__hash__()


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({1: "a", "1": "b"}, "$.odd"),
        ([{"a": {1: "a", "1": "b"}}], "$.odd[0].a"),
        (Point({1.5: "a", "1.5": "b"}), "$.odd.x"),
        (Holder({Level.HIGH: 1, Number(1): 1, "1": 2}), "$.odd.held"),
        ([1, Forgetful()], "$.odd[1]"),
        ({"a": Precise(2026, 1, 2)}, "$.odd.a"),
        (time(1, 2, tzinfo=LOCAL_MEAN_TIME), "$.odd"),
        ([(number for number in [1, 2])], "$.odd[0]"),
        (iter([1]), "$.odd"),
        ([Table()], "$.odd[0]"),
        ([msgspec.Raw(b"{")], "$.odd[0]"),
        ([with_items(Both(1))], "$.odd[0]"),
        ([pydantic.SecretStr("hunter2")], "$.odd[0]"),
        (Fraction(1, 3), "$.odd"),
        (map(str, [1]), "$.odd"),
        ({"a": {float("nan"): 1}}, "$.odd.a"),
        ([1.0, [float("inf")]], "$.odd[1][0]"),
        ({"a": {None: 1}}, "$.odd.a"),
        ({"a": [object()]}, "$.odd.a[0]"),
    ],
    ids=repr,
)
def test_a_value_that_would_lose_something_is_refused_with_its_place(
    value: Any, place: str
) -> None:
    with pytest.raises(UnencodableValue) as raised:
        encode({"fine": 1, "odd": value})
    assert (raised.value.argument, raised.value.path) == ("odd", place)
    assert f"at `{place}`" in str(raised.value)


class Either(pydantic.BaseModel):
    values: dict[int | str, int]


def test_keys_that_pydantic_would_merge_are_refused() -> None:
    with pytest.raises(UnencodableValue) as raised:
        encode({"odd": [Either(values={1: 1, "1": 2})]})
    assert raised.value.path == "$.odd[0]"


class Loading(Iterable[int]):
    """May give its content only once, as an iterator does."""

    def __iter__(self) -> Iterator[int]:
        return iter([1])


def test_an_iterable_without_a_length_is_refused() -> None:
    with pytest.raises(UnencodableValue, match="Loading"):
        encode({"odd": Loading()})
