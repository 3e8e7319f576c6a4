"""Values to bytes and back: the body of an event is a JSON object of its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lightbus.encoding.own_types import decode_unknown
from lightbus.encoding.reading import ReadTypes, parameters_of
from lightbus.encoding.writing import are_plain, encode_unknown, parts_of, to_bus
from lightbus.exceptions import UndecodableEvent, UnencodableValue

# How values are made of JSON: see `ApiConfig.cast_values`.
Casting = Literal["strict", "lax", "off"]

_encoder = msgspec.json.Encoder(enc_hook=encode_unknown)
_decoder = msgspec.json.Decoder(dict[str, Any])

_NON_FINITE = "JSON has no NaN and no infinity"

# How deep an error says where in an argument the value is
_DEEPEST = 30


def encode(values: Mapping[str, Any]) -> bytes:
    """Return `values` as a JSON object.

    Dates and times are text as in RFC 3339, without an offset where they are naive; durations as in
    ISO 8601; bytes in Base64 (RFC 4648, section 4). An enum travels as its value, and a dataclass,
    an attrs class, a named tuple or a Struct of msgspec as an object of its fields. A subclass of a
    built-in type travels as that type does, a mapping by its items, and any other collection as
    what iterating over it gives. Pydantic writes its own types. An object with a method
    ``__to_bus__`` travels as the result of that method.

    Raises:
        UnencodableValue: A value has no JSON form, or would lose something. NaN and the infinities
            have none (RFC 8259, section 6).
    """
    try:
        body = _encoder.encode(values if are_plain(values.values()) else to_bus(values))
    except Exception as error:  # a user's class may raise any
        raise _first_unencodable(values, error) from error
    # The encoder writes NaN and infinities as null, which would change a value silently.
    if b"null" in body:
        _refuse_non_finite(values)
    return body


def decode(body: bytes) -> dict[str, Any]:
    """Return the parameters that `body` holds.

    Raises:
        UndecodableEvent: `body` is not a JSON object.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UndecodableEvent(f"The event's body is not a JSON object: {error}.") from error


class FieldsDecoder:
    """Decodes some of the parameters of bodies, each to a type of its own.

    Args:
        types: The types, by the names of the parameters.
        has_others: Whether the others are returned, too.
        is_lax: Whether text is taken for numbers and booleans, and numbers for text.

    Attributes:
        untyped: The parts of the types that cannot be made of JSON. Their values are left as JSON
            has them.
    """

    def __init__(self, types: Mapping[str, Any], *, has_others: bool, is_lax: bool = False) -> None:
        reading = ReadTypes(is_lax=is_lax)
        known = {name: reading.of(hint, f"$.{name}") for name, hint in types.items()}
        self.untyped = tuple(reading.untyped)
        self._decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(
            parameters_of(known), strict=not is_lax, dec_hook=decode_unknown
        )
        self._has_others = has_others

    def decode(self, body: bytes) -> dict[str, Any]:
        """Return the parameters that `body` holds.

        Raises:
            UndecodableEvent: `body` is not a JSON object.
            Exception: A parameter is not of its type.
        """
        try:
            typed = self._decoder.decode(body)
        except Exception:
            decode(body)
            raise
        return {**decode(body), **typed} if self._has_others else typed


def _first_unencodable(values: Mapping[str, Any], error: Exception) -> UnencodableValue:
    for name, value in values.items():
        if (reason := _why_not(value)) is not None:
            return UnencodableValue(name, value, *_deepest(value, reason, f"$.{name}"))
    return UnencodableValue("(all)", values, str(error), "$")


def _refuse_non_finite(values: Mapping[str, Any]) -> None:
    if any(map(_holds_non_finite, values.values())):
        raise _first_unencodable(values, ValueError(_NON_FINITE))


def _why_not(value: Any) -> str | None:
    """Return why `value` cannot travel; None where it can."""
    try:
        _encoder.encode(to_bus(value))
    except Exception as error:  # a user's class may raise any
        return str(error)
    return _NON_FINITE if _holds_non_finite(value) else None


def _deepest(value: Any, reason: str, place: str) -> tuple[str, str]:
    """Return why the innermost part of `value` cannot travel, and its place."""
    for _ in range(_DEEPEST):
        try:
            found = ((step, part, _why_not(part)) for step, part in parts_of(value))
            step, value, inner = next(one for one in found if one[2] is not None)
        except Exception:  # no part, or what a user's class raised
            break
        reason, place = inner or reason, place + step
    return reason, place


def _holds_non_finite(value: Any) -> bool:
    return _is_non_finite(msgspec.to_builtins(to_bus(value), enc_hook=encode_unknown))


def _is_non_finite(plain: object) -> bool:
    if isinstance(plain, float):
        return not math.isfinite(plain)
    if isinstance(plain, dict):
        return any(_is_non_finite(item) for item in plain.values())
    if isinstance(plain, list | tuple | set | frozenset):
        return any(_is_non_finite(item) for item in plain)
    return False
