"""The parts of a JSON Schema: keywords, the schemas within one, and references."""

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

# Keywords of the bus, beside those of JSON Schema
# The field is not required, but every fired event has it.
ALWAYS_SENT = "x-lightbus-always-sent"
# The bits that an integer, which stands for a `Flag`, may have set
BITS = "x-lightbus-bits"
# The number of bytes that Base64 text encodes, which its length does not determine
MIN_BYTES, MAX_BYTES = "x-lightbus-min-bytes", "x-lightbus-max-bytes"

# Patterns of dates and times: with an offset from UTC, and without
OFFSETS = {True: r"([Zz]|[+-]\d\d:?\d\d)$", False: r"(^|[Tt ])\d\d:\d\d(:\d\d(\.\d+)?)?$"}

# Keywords whose value is a schema, a list of schemas, or schemas by name. An object anywhere else,
# such as in a default, is no schema.
_ONE = (
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
        elif keyword in _ONE:
            changed[keyword] = change(value)
        elif keyword in _MAPS and isinstance(value, dict):
            changed[keyword] = {name: change(item) for name, item in value.items()}
    return changed


def subschemas(schema: Any) -> Iterator[Any]:
    """Yield `schema` and every schema in it, at any depth."""
    found: list[Any] = [schema]
    while found:
        one = found.pop()
        yield one
        with_subschemas(one, found.append)


def key_of(name: str) -> str:
    """Return `name` as a key of letters, digits, ``.``, ``_`` and ``-``; no two names share a key.

    References need no escapes for such keys, and AsyncAPI allows no others for its components.
    """
    return _ESCAPED_IN_KEYS.sub(
        lambda found: "".join(f"-x{byte:02x}" for byte in found[0].encode()), name
    )


def definition_name(reference: Any) -> str | None:
    """Return the name of the definition that `reference` refers to; None if it refers to something
    else.

    A reference is a URI whose fragment is a JSON Pointer (RFC 6901).
    """
    if not isinstance(reference, str) or not reference.startswith(DEFINITIONS):
        return None
    return unquote(reference.removeprefix(DEFINITIONS)).replace("~1", "/").replace("~0", "~")


def schema_of_keys(keys: Schema) -> Schema:
    """Return the part of an object's schema that describes its keys.

    Args:
        keys: The schema of a key, as if it were a value.
    """
    if not keys or "$ref" in keys:
        return {}
    values = keys.get("enum")
    is_text = keys.get("type") == "string" if values is None else _are_text(values)
    if not is_text:
        # Such a key is written as the text of its JSON.
        return {"propertyNames": {"contentMediaType": "application/json", "contentSchema": keys}}
    said = {keyword: value for keyword, value in keys.items() if keyword != "type"}
    return {"propertyNames": said} if said else {}


def _are_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def schema_of_flag(class_: type[enum.Flag]) -> Schema:
    """Return the schema of the members of a `Flag` and of their combinations."""
    mask = functools.reduce(operator.or_, (one.value for one in class_.__members__.values()), 0)
    try:
        class_(1 << mask.bit_length())
    except ValueError:
        return {"type": "integer", "minimum": 0, "maximum": mask, BITS: mask}
    return {"type": "integer"}  # it takes bits that no member has


def only_json(schema: Any) -> Any:
    """Return `schema` without keywords whose values have no JSON form, such as infinite bounds."""
    if not isinstance(schema, dict):
        return schema
    within = with_subschemas(schema, lambda _: True)
    said = {keyword: value for keyword, value in schema.items() if _is_json(within[keyword])}
    return with_subschemas(said, only_json)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
