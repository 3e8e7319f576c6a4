"""Values to bytes and back: the body of an event is a JSON object of its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from lightbus.exceptions import UndecodableEvent, UnencodableValue
from lightbus.values import (
    are_plain,
    decodable,
    decode_unknown,
    encode_unknown,
    parameters_of,
    to_bus,
)

_encoder = msgspec.json.Encoder(enc_hook=encode_unknown)
_decoder = msgspec.json.Decoder(dict[str, Any])


def encode(values: Mapping[str, Any]) -> bytes:
    """Return `values` as a JSON object.

    Dates, UUIDs, decimals, enums, sets, bytes, dataclasses, attrs classes, named tuples, Structs of
    msgspec and models of pydantic travel as the JSON value that these libraries give them; an
    object that has a method ``__to_bus__`` travels as what that returns. Outside of such models,
    dates and times are as in RFC 3339, without an offset where they are naive, durations as in ISO
    8601, and bytes in Base64 (RFC 4648, section 4).

    Raises:
        UnencodableValue: A value has no JSON form. NaN and the infinities have none (RFC 8259,
            section 6).
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
        types: The types, by the names of the parameters. Where one can not be made of JSON, the
            parameter is left as JSON has it.
        has_others: Whether the others are returned, too.
    """

    def __init__(self, types: Mapping[str, Any], *, has_others: bool) -> None:
        known = {name: decodable(hint) for name, hint in types.items()}
        self._decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(
            parameters_of(known), dec_hook=decode_unknown
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
        try:
            _encoder.encode(to_bus(value))
        except Exception as reason:
            return UnencodableValue(name, value, str(reason))
    return UnencodableValue("(all)", values, str(error))


def _refuse_non_finite(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if _holds_non_finite(msgspec.to_builtins(to_bus(value), enc_hook=encode_unknown)):
            raise UnencodableValue(name, value, "JSON has no NaN and no infinity")


def _holds_non_finite(plain: object) -> bool:
    if isinstance(plain, float):
        return not math.isfinite(plain)
    if isinstance(plain, dict):
        return any(_holds_non_finite(item) for item in plain.values())
    if isinstance(plain, list | tuple | set | frozenset):
        return any(_holds_non_finite(item) for item in plain)
    return False
