"""Interprets the keywords of a JSON Schema, and compares their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from lightbus.schema.json_schema import ALWAYS_SENT, BITS, MAX_BYTES, MIN_BYTES, definition_name

Schema = Mapping[str, Any]

# Annotations: keywords that do not constrain values. Keywords that begin with "x-" are annotations
# too, except for those of the bus.
_ANNOTATIONS = (
    *("title", "description", "default", "example", "examples", "deprecated", "readOnly"),
    *("writeOnly", "discriminator", "externalDocs", "xml", "$comment", "$defs", "$id", "$schema"),
    *("$anchor", "$vocabulary", ALWAYS_SENT),
)

# Formats that JSON Schema defines, or that the bus or pydantic writes. Others are annotations.
_FORMATS = (
    *("date-time", "date", "time", "duration", "uuid", "decimal", "regex"),
    *("email", "idn-email", "name-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("ipv4network", "ipv6network", "ipvanynetwork", "ipv4interface", "ipv6interface"),
    *("ipvanyaddress", "ipvanyinterface", "uri", "uri-reference", "iri", "iri-reference"),
    *("uri-template", "json-pointer", "relative-json-pointer", "binary", "base64url"),
    *("json-string", "path", "file-path", "directory-path", "color", "multi-host-uri"),
)

_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}

# Keywords whose values are bounds. The function returns whether the inner bound implies the outer.
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minLength": lambda inner, outer: inner >= outer,
    "maxLength": lambda inner, outer: inner <= outer,
    "minItems": lambda inner, outer: inner >= outer,
    "maxItems": lambda inner, outer: inner <= outer,
    "minProperties": lambda inner, outer: inner >= outer,
    "maxProperties": lambda inner, outer: inner <= outer,
    "multipleOf": lambda inner, outer: Decimal(str(inner)) % Decimal(str(outer)) == 0,
    MIN_BYTES: lambda inner, outer: inner >= outer,
    MAX_BYTES: lambda inner, outer: inner <= outer,
    BITS: lambda inner, outer: inner & ~outer == 0,
}

# The keywords for the smallest and largest number, each with its inclusive or exclusive counterpart
_RANGES = {
    "minimum": "exclusiveMinimum",
    "exclusiveMinimum": "minimum",
    "maximum": "exclusiveMaximum",
    "exclusiveMaximum": "maximum",
}

# The only type of values to which a keyword applies
_KEYWORD_TYPES = {
    **dict.fromkeys([*_RANGES, "multipleOf", BITS], "number"),
    **dict.fromkeys(["minLength", "maxLength", "pattern", "format"], "string"),
    **dict.fromkeys(["minItems", "maxItems", "uniqueItems"], "array"),
    **dict.fromkeys(["minProperties", "maxProperties"], "object"),
}


class OneValue(dict[str, Any]):
    """The schema of exactly one value, which its keyword "const" states."""


def constraints_of(schema: Any) -> Schema:
    """Return the keywords of a schema that constrain values."""
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    return {name: value for name, value in schema.items() if _is_constraint(name, value)}


def _is_constraint(keyword: str, value: Any) -> bool:
    if keyword == "format":
        return value in _FORMATS
    return keyword not in _ANNOTATIONS and (
        not keyword.startswith("x-") or keyword in (BITS, MIN_BYTES, MAX_BYTES)
    )


def options_of(schema: Schema) -> list[Any] | None:
    """Return the schemas of which a value has to fit at least one; None if there are none."""
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": type_} for type_ in schema["type"]]
    options = schema.get("anyOf", schema.get("oneOf"))
    return None if options is None else list(options)


def conditions_of(schema: Schema) -> list[Any] | None:
    """Return the schemas that a value has to fit all of; None if `schema` is not composed."""
    constraints = constraints_of(schema)
    of_many = [name for name in ("anyOf", "oneOf", "allOf") if name in constraints]
    if not of_many or (len(constraints) == 1 and "allOf" not in constraints):
        return None
    rest = {name: value for name, value in constraints.items() if name not in of_many}
    options = [{name: constraints[name]} for name in of_many if name != "allOf"]
    return [*constraints.get("allOf", ()), *options, *([rest] if rest else [])]


def items_of(schema: Schema) -> tuple[list[Any], Any]:
    """Return the schemas of the first items, and the schema of all further items."""
    first = list(schema.get("prefixItems", ()))
    most = schema.get("maxItems")
    is_full = most is not None and most <= len(first)
    return first, False if is_full else schema.get("items", True)


def listed_values(schema: Schema) -> list[Any] | None:
    """Return the values that a schema lists; None if it does not list them."""
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    return [None] if schema.get("type") == "null" else None


def schema_of_value(value: Any) -> OneValue:
    """Return the schema that only `value` fits, with every keyword that `value` satisfies."""
    schema = OneValue(const=value, type=_TYPES[type(value)])
    if isinstance(value, bool) or value is None:
        return schema
    if isinstance(value, int | float):
        schema.update(minimum=value, maximum=value, multipleOf=value)
    if isinstance(value, int):
        schema[BITS] = value
    if isinstance(value, str):
        schema.update(minLength=len(value), maxLength=len(value))
    if isinstance(value, list):
        items = [{"const": item} for item in value]
        schema.update(prefixItems=items, minItems=len(items), maxItems=len(items))
    if isinstance(value, dict):
        properties = {name: {"const": item} for name, item in value.items()}
        schema.update(properties=properties, required=list(value))
        schema.update(minProperties=len(value), maxProperties=len(value))
    return schema


def is_listed(schema: Schema, values: list[Any] | None) -> bool:
    """Return whether the only value of `schema` is among `values`; true if `values` is None."""
    if values is None:
        return True
    if not isinstance(schema, OneValue):
        return False
    encoded_values = {msgspec.json.encode(value, order="sorted") for value in values}
    return msgspec.json.encode(schema["const"], order="sorted") in encoded_values


def applies_to(keyword: str, schema: Schema) -> bool:
    """Return whether `keyword` applies to values of the type of `schema`."""
    type_ = "number" if schema.get("type") == "integer" else schema.get("type")
    return type_ is None or _KEYWORD_TYPES.get(keyword, type_) == type_


def satisfies(schema: Schema, keyword: str, required: Any) -> bool:
    """Return whether all values of `schema` satisfy a keyword whose value is `required`."""
    if keyword in _RANGES:
        return _is_in_range(schema, keyword, required)
    if keyword == "pattern" and isinstance(schema, OneValue) and isinstance(schema["const"], str):
        return _matches(required, schema["const"])
    # The smallest possible length is 0.
    default = 0 if keyword in ("minLength", "minItems", "minProperties") else None
    actual = schema.get(keyword, default)
    return actual is not None and keyword in _BOUNDS and _BOUNDS[keyword](actual, required)


def _is_in_range(schema: Schema, keyword: str, required: Any) -> bool:
    sign = 1 if keyword.endswith("inimum") else -1
    same, counterpart = schema.get(keyword), schema.get(_RANGES[keyword])
    if same is not None and sign * same >= sign * required:
        return True
    if counterpart is None:
        return False
    is_exclusive = keyword.startswith("exclusive")
    return bool(
        sign * counterpart > sign * required or (not is_exclusive and counterpart == required)
    )


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # Python does not support every pattern that JSON Schema allows
        return False


def _format_value(value: Any) -> str:
    return "null" if value is None else repr(value)


def describe_schema(schema: Any) -> str:
    """Return a short description of the values of a schema."""
    if not isinstance(schema, Mapping):
        return "nothing" if schema is False else "anything"
    if (options := options_of(schema)) is not None:
        return " or ".join(describe_schema(option) for option in options)
    if schema.get("type") != "null" and (values := listed_values(schema)) is not None:
        return " or ".join(map(_format_value, values))
    if "$ref" in schema:
        return str(definition_name(schema["$ref"]) or schema["$ref"])
    name = str(schema.get("title") or schema.get("type", "anything"))
    return f"{name} ({schema['format']})" if "format" in schema else name
