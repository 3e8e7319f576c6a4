"""Writes subclasses of built-in scalar types as values of the built-in type."""

from __future__ import annotations

import ipaddress
import pathlib
import types
from collections import UserString
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any
from uuid import UUID

Writer = Callable[[Any], Any]


# Values of these classes are encoded as text, and read from that text.
TEXT_TYPES = (
    *(complex, pathlib.PurePath),
    *(ipaddress.IPv4Address, ipaddress.IPv4Network, ipaddress.IPv4Interface),
    *(ipaddress.IPv6Address, ipaddress.IPv6Network, ipaddress.IPv6Interface),
)


_MINUTE = timedelta(minutes=1)


def _write_datetime(value: Any) -> Any:
    base = _base_of(value)
    plain = value if type(value) is base else base.combine(base.date(value), base.timetz(value))
    _require_equal(plain, value)
    offset = plain.utcoffset()
    # The encoder drops the seconds of an offset, which would change the moment.
    if offset is None or not offset % _MINUTE:
        return plain
    return (plain - offset).replace(tzinfo=UTC)


def _write_time(value: Any) -> Any:
    offset = value.utcoffset()
    if offset is not None and offset % _MINUTE:
        raise ValueError("the offset of a time has whole minutes")
    base = _base_of(value)
    if type(value) is base:
        return value
    parts = value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    return base(*parts, fold=value.fold)


def _write_date(value: Any) -> Any:
    base = _base_of(value)
    return base.fromordinal(base.toordinal(value))


def _write_timedelta(value: Any) -> Any:
    plain = _base_of(value)(value.days, value.seconds, value.microseconds)
    _require_equal(plain, value)
    return plain


def _write_number(value: Any) -> int | float:
    plain = int(value) if isinstance(value, Integral) else float(value)
    _require_equal(plain, value)
    return plain


def _base_of(value: Any) -> Any:
    return next(base for base in type(value).__mro__ if base in SCALAR_WRITERS)


def _require_equal(plain: Any, value: Any) -> None:
    if plain != value:
        raise ValueError(f"only a part of it fits a {type(plain).__name__}")


# A subclass is written as the first class here that it derives from.
SCALAR_WRITERS: dict[type[Any], Writer] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: bytes,
    memoryview: bytes,
    Decimal: Decimal,
    UUID: lambda value: UUID(int=value.int),
    datetime: _write_datetime,
    date: _write_date,
    time: _write_time,
    timedelta: _write_timedelta,
    **dict.fromkeys((UserString, *TEXT_TYPES), str),
    Real: _write_number,
}

# Return the object behind a proxy, by the class that the proxy claims to have
UNWRAP_PROXY: dict[type[Any], Callable[[Any], Any]] = {
    types.NoneType: lambda _: None,
    bool: bool,
    str: str,
    int: int,
    float: float,
    bytes: bytes,
    Decimal: lambda value: Decimal(str(value)),
    **dict.fromkeys((datetime, date, time), lambda value: value.replace()),
    timedelta: lambda value: value + timedelta(),
    UUID: lambda value: UUID(int=value.int),
}
