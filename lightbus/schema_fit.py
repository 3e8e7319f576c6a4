"""Whether all values of one JSON Schema are values of another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

# A schema, and the document that its references lead into.
Placed = tuple[Schema, Schema]

# Of what says nothing about values.
_NOTES = ("title", "description", "default", "examples", "discriminator", "deprecated", "$defs")

_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}

# Keywords whose value is a bound, and how two of them compare where the first is the narrower one.
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda inner, outer: inner >= outer,
    "exclusiveMinimum": lambda inner, outer: inner >= outer,
    "maximum": lambda inner, outer: inner <= outer,
    "exclusiveMaximum": lambda inner, outer: inner <= outer,
    "minLength": lambda inner, outer: inner >= outer,
    "maxLength": lambda inner, outer: inner <= outer,
    "minItems": lambda inner, outer: inner >= outer,
    "maxItems": lambda inner, outer: inner <= outer,
    "minProperties": lambda inner, outer: inner >= outer,
    "maxProperties": lambda inner, outer: inner <= outer,
}

# Keywords that are compared as they are: a value that meets another one may not meet this one.
_SAME = ("format", "pattern", "contentEncoding", "contentMediaType", "multipleOf", "uniqueItems")


def why_not(inner: Placed, outer: Placed) -> str | None:
    """Return why a value of `inner` need not be one of `outer`, with its place; None where each is.

    It errs on the side of a reason: schemas can say the same in ways that this does not see.
    """
    return next(_reasons(inner, outer, "$", frozenset()), None)


def _reasons(inner: Placed, outer: Placed, path: str, seen: frozenset[str]) -> Iterator[str]:
    inner, outer = _resolved(inner), _resolved(outer)
    pair = json.dumps([inner[0], outer[0]], sort_keys=True)
    if pair in seen or not _said(outer):
        return
    seen |= {pair}
    if "anyOf" in inner[0]:
        for option in inner[0]["anyOf"]:
            yield from _reasons((option, inner[1]), outer, path, seen)
    elif "anyOf" in outer[0]:
        yield from _none_of(inner, outer, path, seen)
    elif "enum" in inner[0] or "const" in inner[0]:
        yield from _values_that_do_not_fit(inner[0], outer, path)
    elif "enum" in outer[0] or "const" in outer[0]:
        yield f"at {path}, {_name_of(inner[0])} instead of {_name_of(outer[0])}"
    else:
        yield from _reasons_of_types(inner, outer, path, seen)


def _resolved(placed: Placed) -> Placed:
    schema, document = placed
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = document.get("$defs", {}).get(name, {})
    return schema, document


def _said(placed: Placed) -> Schema:
    return {name: value for name, value in placed[0].items() if name not in _NOTES}


def _none_of(inner: Placed, outer: Placed, path: str, seen: frozenset[str]) -> Iterator[str]:
    options = [(option, outer[1]) for option in outer[0]["anyOf"]]
    reasons = [next(_reasons(inner, option, path, seen), None) for option in options]
    if None not in reasons:
        of_same_type = [
            reason
            for reason, option in zip(reasons, options, strict=True)
            if _resolved(option)[0].get("type") == inner[0].get("type")
        ]
        if len(of_same_type) == 1:
            yield str(of_same_type[0])
        else:
            yield f"at {path}, {_name_of(inner[0])} instead of {_name_of(outer[0])}"


def _values_that_do_not_fit(inner: Schema, outer: Placed, path: str) -> Iterator[str]:
    for value in _listed(inner):
        known = _listed(outer[0])
        is_known = value in known if known else _is_of(_type_of(value), outer[0].get("type"))
        if not is_known:
            yield f"at {path}, {value!r} instead of {_name_of(outer[0])}"


def _listed(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _type_of(value: object) -> str:
    return _TYPES.get(type(value), "")


def _is_of(inner: Any, outer: Any) -> bool:
    return outer is None or inner == outer or (inner, outer) == ("integer", "number")


def _reasons_of_types(
    inner: Placed, outer: Placed, path: str, seen: frozenset[str]
) -> Iterator[str]:
    of, to = inner[0], outer[0]
    if not _is_of(of.get("type"), to.get("type")):
        yield f"at {path}, {_name_of(of)} instead of {_name_of(to)}"
        return
    for keyword in (*_BOUNDS, *_SAME):
        if keyword not in to or to[keyword] == of.get(keyword):
            continue
        is_narrower = _BOUNDS.get(keyword)
        if keyword not in of or is_narrower is None or not is_narrower(of[keyword], to[keyword]):
            yield f"at {path}, {keyword} {of.get(keyword, 'none')} instead of {to[keyword]}"
    yield from _reasons_of_items(inner, outer, path, seen)
    yield from _reasons_of_properties(inner, outer, path, seen)


def _reasons_of_items(
    inner: Placed, outer: Placed, path: str, seen: frozenset[str]
) -> Iterator[str]:
    pairs = zip(inner[0].get("prefixItems", ()), outer[0].get("prefixItems", ()), strict=False)
    for place, (of, to) in enumerate(pairs):
        yield from _reasons((of, inner[1]), (to, outer[1]), f"{path}[{place}]", seen)
    of, to = inner[0].get("items", {}), outer[0].get("items", {})
    if to is False and of is not False:
        yield f"at {path}, more items than there can be"
    elif isinstance(of, Mapping) and isinstance(to, Mapping):
        yield from _reasons((of, inner[1]), (to, outer[1]), f"{path}[...]", seen)


def _reasons_of_properties(
    inner: Placed, outer: Placed, path: str, seen: frozenset[str]
) -> Iterator[str]:
    of, to = inner[0].get("properties", {}), outer[0].get("properties", {})
    for name in outer[0].get("required", ()):
        if name not in inner[0].get("required", ()):
            yield f"at {path}.{name}, it may be missing"
    others = outer[0].get("additionalProperties", {})
    for name, schema in of.items():
        placed = (schema, inner[1])
        if name in to:
            yield from _reasons(placed, (to[name], outer[1]), f"{path}.{name}", seen)
        elif others is False:
            yield f"at {path}.{name}, which is not known"
        elif isinstance(others, Mapping):
            yield from _reasons(placed, (others, outer[1]), f"{path}.{name}", seen)
    more = inner[0].get("additionalProperties", {})
    if isinstance(more, Mapping) and isinstance(others, Mapping) and others:
        yield from _reasons((more, inner[1]), (others, outer[1]), f"{path}[...]", seen)


def _name_of(schema: Schema) -> str:
    """Say what a schema admits, in short."""
    if "anyOf" in schema:
        return " or ".join(_name_of(option) for option in schema["anyOf"])
    if values := _listed(schema):
        return " or ".join(repr(value) for value in values)
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix("#/$defs/")
    name = str(schema.get("title") or schema.get("type", "anything"))
    return f"{name} ({schema['format']})" if "format" in schema else name
