"""Reads and writes the parts of a JSON Schema: keywords, nested schemas and references."""

from __future__ import annotations

import enum
import functools
import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DEFINITIONS = "#/$defs/"

# Keywords that the bus adds to JSON Schema
# The field is not required, but every event that is fired now has it.
ALWAYS_SENT = "x-lightbus-always-sent"
# The bits that may be set in an integer that represents a `Flag`
BITS = "x-lightbus-bits"
# The number of bytes that Base64 text encodes, which its length does not determine
MIN_BYTES, MAX_BYTES = "x-lightbus-min-bytes", "x-lightbus-max-bytes"

# Patterns of dates and times: with an offset from UTC (True), and without (False)
OFFSETS = {True: r"([Zz]|[+-]\d\d:?\d\d)$", False: r"(^|[Tt ])\d\d:\d\d(:\d\d(\.\d+)?)?$"}

# Keywords whose value is a schema, a list of schemas, or a map of schemas. The value of any other
# keyword, such as "default", contains no schema.
_SINGLES = (
    *("items", "additionalItems", "unevaluatedItems", "contains", "additionalProperties"),
    *("unevaluatedProperties", "propertyNames", "contentSchema", "not", "if", "then", "else"),
)
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")

_ESCAPED_IN_KEYS = re.compile(r"[^a-zA-Z0-9._-]|-(?=x[0-9a-f]{2})")


def with_subschemas(schema: Any, change: Callable[[Any], Any]) -> Any:
    """Return `schema` with each schema directly in it replaced by the result of `change`."""
    if not isinstance(schema, dict):
        return schema
    changed = dict(schema)
    for keyword, value in schema.items():
        if keyword in _LISTS and isinstance(value, list):
            changed[keyword] = [change(item) for item in value]
        elif keyword in _SINGLES:
            changed[keyword] = change(value)
        elif keyword in _MAPS and isinstance(value, dict):
            changed[keyword] = {name: change(item) for name, item in value.items()}
    return changed


def subschemas(schema: Any) -> Iterator[Any]:
    """Yield `schema` and every schema in it, at any depth."""
    pending: list[Any] = [schema]
    while pending:
        one = pending.pop()
        yield one
        with_subschemas(one, pending.append)


def escape_key(name: str) -> str:
    """Return `name` as a key of letters, digits, ``.``, ``_`` and ``-``. Different names give
    different keys.

    Such keys need no escapes in references, and AsyncAPI allows no others for its components.
    """
    return _ESCAPED_IN_KEYS.sub(
        lambda match: "".join(f"-x{byte:02x}" for byte in match[0].encode()), name
    )


def definition_name(reference: Any) -> str | None:
    """Return the name of the definition to which `reference` refers; None if it is another target.

    A reference is a URI whose fragment is a JSON Pointer (RFC 6901).
    """
    if not isinstance(reference, str) or not reference.startswith(DEFINITIONS):
        return None
    return unquote(reference.removeprefix(DEFINITIONS)).replace("~1", "/").replace("~0", "~")


def schema_of_keys(keys: Schema) -> Schema:
    """Return the keywords that describe the keys of an object.

    Args:
        keys: The schema that the keys would have as values.
    """
    if not keys or "$ref" in keys:
        return {}
    values = keys.get("enum")
    is_text = keys.get("type") == "string" if values is None else _are_text(values)
    if not is_text:
        return schema_of_json_keys(keys)
    names = {keyword: value for keyword, value in keys.items() if keyword != "type"}
    return {"propertyNames": names} if names else {}


def schema_of_json_keys(keys: Schema) -> Schema:
    """Return the keywords that describe keys that are written as their JSON text.

    Args:
        keys: The schema that the keys would have as values.
    """
    return {"propertyNames": {"contentMediaType": "application/json", "contentSchema": keys}}


def _are_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def schema_of_flag(class_: type[enum.Flag]) -> Schema:
    """Return the schema of the members of a `Flag` and of their combinations."""
    mask = functools.reduce(operator.or_, (one.value for one in class_.__members__.values()), 0)
    try:
        class_(1 << mask.bit_length())
    except ValueError:
        return {"type": "integer", "minimum": 0, "maximum": mask, BITS: mask}
    return {"type": "integer"}  # the class accepts bits that no member has


def without_non_json(schema: Any) -> Any:
    """Return `schema` without keywords whose values have no JSON form, such as infinite bounds."""
    if not isinstance(schema, dict):
        return schema
    within = with_subschemas(schema, lambda _: True)
    result = {keyword: value for keyword, value in schema.items() if _is_json(within[keyword])}
    return with_subschemas(result, without_non_json)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
