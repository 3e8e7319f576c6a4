"""Values to bytes and back: the body of an event is a JSON object of its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypedDict

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


class FieldsDecoder:
    """Decodes some of the parameters of bodies, each to a type of its own.

    Args:
        types: The types, by the names of the parameters. Where one is nothing that `msgspec` makes
            of JSON, the parameter is left as JSON has it.
        has_others: Whether the others are returned, too.
    """

    def __init__(self, types: Mapping[str, Any], *, has_others: bool) -> None:
        known = {name: type_ if _is_castable(type_) else Any for name, type_ in types.items()}
        self._decoder = _decoder_of(known)
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


def _decoder_of(types: Mapping[str, Any]) -> msgspec.json.Decoder[dict[str, Any]]:
    # Parameters may be missing, and others are passed over.
    parameters: Any = TypedDict("Parameters", types, total=False)  # type: ignore[misc]
    return msgspec.json.Decoder(parameters)


def _is_castable(type_: Any) -> bool:
    try:
        _decoder_of({"parameter": type_})
        return not _holds_custom_type(msgspec.inspect.type_info(type_), set())
    except Exception:  # of a type that is none, or whose own hints are wrong
        return False


def _holds_custom_type(node: object, seen: set[int]) -> bool:
    """Return whether a description by `msgspec` holds a type that it can not make."""
    if id(node) in seen:
        return False
    seen.add(id(node))
    if isinstance(node, tuple):
        return any(_holds_custom_type(item, seen) for item in node)
    if isinstance(node, msgspec.inspect.CustomType):
        return True
    names = node.__struct_fields__ if isinstance(node, msgspec.Struct) else ()
    return any(_holds_custom_type(getattr(node, name), seen) for name in names)


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
