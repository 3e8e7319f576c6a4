"""Values to bytes and back: the body of an event is a JSON object of its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lightbus.exceptions import UndecodableEvent, UnencodableValue

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])
_ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def encode(values: Mapping[str, Any]) -> bytes:
    """Return `values` as a JSON object.

    Dates, UUIDs, decimals, enums, sets, bytes and dataclasses travel as the JSON value that
    `msgspec` gives them.

    Raises:
        UnencodableValue: A value has no JSON form. NaN and the infinities have none (RFC 8259,
            section 6).
    """
    try:
        body = _encoder.encode(values)
    except _ENCODING_ERRORS as error:
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


def _first_unencodable(values: Mapping[str, Any], error: Exception) -> UnencodableValue:
    for name, value in values.items():
        try:
            _encoder.encode(value)
        except _ENCODING_ERRORS as reason:
            return UnencodableValue(name, value, str(reason))
    return UnencodableValue("(all)", values, str(error))


def _refuse_non_finite(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if _holds_non_finite(msgspec.to_builtins(value)):
            raise UnencodableValue(name, value, "JSON has no NaN and no infinity")


def _holds_non_finite(plain: object) -> bool:
    if isinstance(plain, float):
        return not math.isfinite(plain)
    if isinstance(plain, dict):
        return any(_holds_non_finite(item) for item in plain.values())
    if isinstance(plain, list | tuple | set | frozenset):
        return any(_holds_non_finite(item) for item in plain)
    return False
