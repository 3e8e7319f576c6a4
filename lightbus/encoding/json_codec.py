"""Encodes the parameters of an event as a JSON object, and decodes that object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lightbus.encoding.custom_types import decode_custom
from lightbus.encoding.native_types import parameters_type
from lightbus.encoding.reading import TypeBuilder
from lightbus.encoding.writing import are_plain, child_values, encode_unknown, to_bus
from lightbus.exceptions import UndecodableEvent, UnencodableValue

# How JSON values are converted to the types of a handler: see `ApiConfig.cast_values`.
CastMode = Literal["strict", "lax", "off"]

_encoder = msgspec.json.Encoder(enc_hook=encode_unknown)
_decoder = msgspec.json.Decoder(dict[str, Any])

_NON_FINITE = "JSON has no NaN and no infinity"

# The most steps in the path of a value that an error reports
_MAX_DEPTH = 30


def encode(values: Mapping[str, Any]) -> bytes:
    """Encode `values` as a JSON object.

    Dates and times become text (RFC 3339, without an offset if they are naive), durations become
    text (ISO 8601), and bytes become Base64 text (RFC 4648, section 4). An enum member is encoded
    as its value. A dataclass, an attrs class, a named tuple and a msgspec Struct are encoded as an
    object of their fields. A subclass of a built-in type is encoded like that type, a mapping as an
    object of its items, and any other collection as an array of the items that it iterates over.
    Pydantic encodes its own types. An object with a method ``__to_bus__`` is encoded as the result
    of that method.

    Raises:
        UnencodableValue: A value has no JSON form, or its JSON form would lose data. NaN and
            infinities have no JSON form (RFC 8259, section 6).
    """
    try:
        body = _encoder.encode(values if are_plain(values.values()) else to_bus(values))
    except Exception as error:  # a user's class may raise any exception
        raise _first_unencodable(values, error) from error
    # The encoder writes NaN and infinities as null, which would silently change a value.
    if b"null" in body:
        _require_finite(values)
    return body


def decode(body: bytes) -> dict[str, Any]:
    """Decode `body` into the parameters of an event.

    Raises:
        UndecodableEvent: `body` is not a JSON object.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UndecodableEvent(f"The body of the event is not a JSON object: {error}.") from error


class FieldsDecoder:
    """Decodes the parameters of an event, and converts each to its own type.

    Args:
        types: The types, by the names of the parameters.
        keeps_others: Whether parameters that `types` does not name are returned too.
        is_lax: Whether text is accepted for numbers and booleans, and numbers for text.

    Attributes:
        unsupported: The parts of the types that JSON cannot be converted to. Their values stay
            plain JSON values.
    """

    def __init__(
        self, types: Mapping[str, Any], *, keeps_others: bool, is_lax: bool = False
    ) -> None:
        builder = TypeBuilder(is_lax=is_lax)
        known = {name: builder.build(hint, f"$.{name}") for name, hint in types.items()}
        self.unsupported = tuple(builder.unsupported)
        self._decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(
            parameters_type(known), strict=not is_lax, dec_hook=decode_custom
        )
        self._keeps_others = keeps_others

    def decode(self, body: bytes) -> dict[str, Any]:
        """Decode `body` into the parameters of an event.

        Raises:
            UndecodableEvent: `body` is not a JSON object.
            Exception: A value does not fit the type of its parameter.
        """
        try:
            typed = self._decoder.decode(body)
        except Exception:
            decode(body)
            raise
        return {**decode(body), **typed} if self._keeps_others else typed


def _first_unencodable(values: Mapping[str, Any], error: Exception) -> UnencodableValue:
    for name, value in values.items():
        if (reason := _encoding_failure(value)) is not None:
            return UnencodableValue(name, value, *_innermost_failure(value, reason, f"$.{name}"))
    return UnencodableValue("(all)", values, str(error), "$")


def _require_finite(values: Mapping[str, Any]) -> None:
    if any(map(_has_non_finite, values.values())):
        raise _first_unencodable(values, ValueError(_NON_FINITE))


def _encoding_failure(value: Any) -> str | None:
    """Return why `value` cannot be encoded; None if it can."""
    try:
        _encoder.encode(to_bus(value))
    except Exception as error:  # a user's class may raise any exception
        return str(error)
    return _NON_FINITE if _has_non_finite(value) else None


def _innermost_failure(value: Any, reason: str, path: str) -> tuple[str, str]:
    """Return why the innermost part of `value` cannot be encoded, and the path of that part."""
    for _ in range(_MAX_DEPTH):
        try:
            checked = ((step, part, _encoding_failure(part)) for step, part in child_values(value))
            step, value, inner = next(child for child in checked if child[2] is not None)
        except Exception:  # no part fails, or a user's class raised
            break
        reason, path = inner or reason, path + step
    return reason, path


def _has_non_finite(value: Any) -> bool:
    return _is_non_finite(msgspec.to_builtins(to_bus(value), enc_hook=encode_unknown))


def _is_non_finite(plain: object) -> bool:
    if isinstance(plain, float):
        return not math.isfinite(plain)
    if isinstance(plain, dict):
        return any(_is_non_finite(item) for item in plain.values())
    if isinstance(plain, list | tuple | set | frozenset):
        return any(_is_non_finite(item) for item in plain)
    return False
