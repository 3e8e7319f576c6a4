"""Whether all values of one JSON Schema are values of another."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from lightbus.json_schema import (
    ALWAYS_SENT,
    BITS,
    MAX_BYTES,
    MIN_BYTES,
    definition_name,
    subschemas,
)

Schema = Mapping[str, Any]

# A schema, and the document that its references lead into.
Placed = tuple[Any, Schema]

# Keywords that say nothing about values. Those that begin with "x-" say nothing either, but for
# those of the bus.
_NOTES = (
    *("title", "description", "default", "example", "examples", "deprecated", "readOnly"),
    *("writeOnly", "discriminator", "externalDocs", "xml", "$comment", "$defs", "$id", "$schema"),
    *("$anchor", "$vocabulary", ALWAYS_SENT),
)

# The formats that JSON Schema defines, or that the bus and pydantic write. Any other is a note.
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

# Keywords whose value is a bound, and how two of them compare where the first is the narrower one.
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

# The keywords for the least and the greatest number, and the one that excludes the number itself.
_RANGES = {
    "minimum": "exclusiveMinimum",
    "exclusiveMinimum": "minimum",
    "maximum": "exclusiveMaximum",
    "exclusiveMaximum": "maximum",
}

# What the keywords for one type of value are for; they say nothing about others.
_KINDS = {
    **dict.fromkeys([*_RANGES, "multipleOf", BITS], "number"),
    **dict.fromkeys(["minLength", "maxLength", "pattern", "format"], "string"),
    **dict.fromkeys(["minItems", "maxItems", "uniqueItems"], "array"),
    **dict.fromkeys(["minProperties", "maxProperties"], "object"),
}

# Keywords that have a method of their own; of any other, only whether both say the same is known.
_READ = (
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "prefixItems", "items"),
    *("properties", "required", "additionalProperties", "propertyNames", "contentSchema"),
)


class _Value(dict[str, Any]):
    """The schema of exactly one value, which is its "const"."""


def why_not(inner: Placed, outer: Placed, *, is_sent: bool = False) -> str | None:
    """Return why a value of `inner` need not be one of `outer`, with its place; None where each is.

    It errs on the side of a reason: schemas can say the same in ways that this does not see.

    Args:
        inner: A schema.
        outer: Another one.
        is_sent: Whether each value has the fields that `inner` says are always sent, though it
            does not require them.
    """
    if inner[0] == outer[0] and _definitions_of(inner) == _definitions_of(outer):
        return None
    return _Comparison(is_sent=is_sent).why_not(inner, outer, "$")


class _Comparison:
    """One comparison. Types may refer to each other, so each pair of them is compared once.

    A pair that is met again while it is compared is taken to fit, for else something else does not.
    """

    def __init__(self, *, is_sent: bool) -> None:
        self._is_sent = is_sent
        self._fitting: dict[bytes, None] = {}
        self._failing: dict[bytes, str] = {}

    def why_not(self, inner: Placed, outer: Placed, path: str) -> str | None:
        inner, outer = resolved(inner), resolved(outer)
        if inner[0] is False or not _said(outer[0]):
            return None
        if outer[0] is False:
            return f"at {path}, {_name_of(inner[0])} instead of nothing"
        pair = msgspec.json.encode([inner[0], outer[0]], order="sorted")
        pair += b"1" if isinstance(inner[0], _Value) else b"0"
        if pair in self._fitting:
            return None
        if pair in self._failing:
            return self._failing[pair]
        before = len(self._fitting)
        self._fitting[pair] = None
        reason = self._compare(inner, outer, path)
        if reason is not None:
            # What was found to fit meanwhile may have relied on this one.
            for later in list(self._fitting)[before:]:
                del self._fitting[later]
            self._failing[pair] = reason
        return reason

    def _compare(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, defined = inner
        if (options := _options(of)) is not None:
            return _first(self.why_not((one, defined), outer, path) for one in options)
        if not isinstance(of, _Value) and (values := _listed(of)) is not None:
            return _first(self.why_not((_value(one), defined), outer, path) for one in values)
        if (parts := _parts(outer[0])) is not None:
            return _first(self.why_not(inner, (one, outer[1]), path) for one in parts)
        if (parts := _parts(of)) is not None:
            reasons = [self.why_not((one, defined), outer, path) for one in parts]
            return None if None in reasons else _first(reasons)
        return self._compare_single(inner, outer, path)

    def _compare_single(self, inner: Placed, outer: Placed, path: str) -> str | None:
        """Compare where all values of `inner` are of one kind."""
        of, (to, document) = inner[0], outer
        if (options := _options(to)) is not None:
            return self._why_none_of(inner, [(one, document) for one in options], path)
        is_other = not _is_of(of.get("type"), to.get("type"))
        if is_other or not _is_listed(of, _listed(to)):
            return f"at {path}, {_name_of(of)} instead of {_name_of(to)}"
        return (
            _first(_keywords(inner, outer, path))
            or self._content(inner, outer, path)
            or self._items(inner, outer, path)
            or self._properties(inner, outer, path)
        )

    def _why_none_of(self, inner: Placed, options: list[Placed], path: str) -> str | None:
        reasons = [self.why_not(inner, option, path) for option in options]
        if None in reasons:
            return None
        type_ = inner[0].get("type")
        targets = [resolved(option)[0] for option in options]
        alike = [
            reason
            for reason, option in zip(reasons, targets, strict=True)
            if isinstance(option, Mapping) and option.get("type") == type_
        ]
        if len(alike) == 1:
            return alike[0]
        return f"at {path}, {_name_of(inner[0])} instead of {' or '.join(map(_name_of, targets))}"

    def _content(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, to = (placed[0].get("contentSchema", {}) for placed in (inner, outer))
        return self.why_not((of, inner[1]), (to, outer[1]), path)

    def _items(self, inner: Placed, outer: Placed, path: str) -> str | None:
        (first, more), (wanted, others) = _items_of(inner[0]), _items_of(outer[0])
        for number in range(max(len(first), len(wanted))):
            of = first[number] if number < len(first) else more
            to = wanted[number] if number < len(wanted) else others
            place = f"{path}[{number}]"
            if reason := self.why_not((of, inner[1]), (to, outer[1]), place):
                return reason
        if others is False and more is not False:
            return f"at {path}, more items than there can be"
        return self.why_not((more, inner[1]), (others, outer[1]), f"{path}[...]")

    def _properties(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, to = inner[0].get("properties", {}), outer[0].get("properties", {})
        # The classes that declare their fields send no others.
        more = inner[0].get("additionalProperties", "properties" not in inner[0])
        others = outer[0].get("additionalProperties", True)
        if missing := [name for name in outer[0].get("required", ()) if not self._has(inner, name)]:
            return f"at {path}.{missing[0]}, it may be missing"
        if others is False and more is not False:
            return f"at {path}, there may be more than {', '.join(to) or 'nothing'}"
        for name in {**of, **to}:
            # What is no property of one of them is what its others are.
            values = (of.get(name, more), inner[1]), (to.get(name, others), outer[1])
            if values[0][0] is not False and values[1][0] is False:
                return f"at {path}.{name}, which is not known"
            if reason := self.why_not(*values, f"{path}.{name}"):
                return reason
        return self._names(inner, outer, more, path) or self.why_not(
            (more, inner[1]), (others, outer[1]), f"{path}[...]"
        )

    def _has(self, inner: Placed, name: str) -> bool:
        """Return whether every value of `inner` has the field `name`."""
        field = inner[0].get("properties", {}).get(name)
        is_sent = self._is_sent and isinstance(field, Mapping) and field.get(ALWAYS_SENT) is True
        return is_sent or name in inner[0].get("required", ())

    def _names(self, inner: Placed, outer: Placed, more: Any, path: str) -> str | None:
        """Compare what the names of properties can be."""
        if "propertyNames" not in outer[0]:
            return None
        said = [(placed[0].get("propertyNames", True), placed[1]) for placed in (inner, outer)]
        of, to = (({"allOf": [{"type": "string"}, names]}, document) for names, document in said)
        known = inner[0].get("properties", {})
        names = [(_value(name), inner[1]) for name in known] + ([of] if more is not False else [])
        return _first(self.why_not(name, to, f"{path} (keys)") for name in names)


def resolved(placed: Placed) -> Placed:
    """Return the schema that a reference leads to; False for one that admits nothing."""
    schema, document = placed
    seen = 0
    definitions = document.get("$defs", {})
    while isinstance(schema, Mapping) and "$ref" in schema and seen <= len(definitions):
        target = definitions.get(definition_name(schema["$ref"]), {})
        beside = {name: value for name, value in _said(schema).items() if name != "$ref"}
        schema = {"allOf": [target, beside]} if beside else target
        seen += 1
    if isinstance(schema, Mapping):
        return schema, document
    # `true` is a schema that admits everything, and `false` one that admits nothing.
    return (False if schema is False else {}), document


def _said(schema: Any) -> Schema:
    """Return the keywords of a schema that say something about values."""
    if not isinstance(schema, Mapping):
        return {"not": {}} if schema is False else {}
    return {name: value for name, value in schema.items() if _is_said(name, value)}


def _is_said(keyword: str, value: Any) -> bool:
    if keyword == "format":
        return value in _FORMATS
    return keyword not in _NOTES and (
        not keyword.startswith("x-") or keyword in (BITS, MIN_BYTES, MAX_BYTES)
    )


def _options(schema: Schema) -> list[Any] | None:
    """Return the schemas of which a value fits one at least, where that is all that is said."""
    if isinstance(schema.get("type"), list):
        return [{**schema, "type": type_} for type_ in schema["type"]]
    found = schema.get("anyOf", schema.get("oneOf"))
    return None if found is None else list(found)


def _parts(schema: Schema) -> list[Any] | None:
    """Return the schemas that a value fits all of; None where it is one."""
    said = _said(schema)
    of_many = [name for name in ("anyOf", "oneOf", "allOf") if name in said]
    if not of_many or (len(said) == 1 and "allOf" not in said):
        return None
    rest = {name: value for name, value in said.items() if name not in of_many}
    options = [{name: said[name]} for name in of_many if name != "allOf"]
    return [*said.get("allOf", ()), *options, *([rest] if rest else [])]


def _items_of(schema: Schema) -> tuple[list[Any], Any]:
    """Return the schemas of the first items, and that of all further ones."""
    first = list(schema.get("prefixItems", ()))
    most = schema.get("maxItems")
    is_full = most is not None and most <= len(first)
    return first, False if is_full else schema.get("items", True)


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    return [None] if schema.get("type") == "null" else None


def _value(value: Any) -> _Value:
    """Return a schema of `value` alone, with all that can be said about it."""
    schema = _Value(const=value, type=_TYPES[type(value)])
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


def _is_listed(of: Schema, values: list[Any] | None) -> bool:
    """Return whether `of` has no value but these."""
    if values is None:
        return True
    wanted = {msgspec.json.encode(value, order="sorted") for value in values}
    return isinstance(of, _Value) and msgspec.json.encode(of["const"], order="sorted") in wanted


def _is_of(inner: Any, outer: Any) -> bool:
    return outer is None or inner == outer or (inner, outer) == ("integer", "number")


def _keywords(inner: Placed, outer: Placed, path: str) -> Iterable[str]:
    """Yield which keywords of `outer` say what a value of `inner` need not be."""
    of, to = inner[0], outer[0]
    for keyword, wanted in _said(to).items():
        if keyword in _READ or _is_of_others(keyword, of) or _is_within(keyword, of, wanted):
            continue
        found = of.get(keyword)
        of_both = [({keyword: found}, inner[1]), ({keyword: wanted}, outer[1])]
        if found == wanted and operator.eq(*map(_definitions_of, of_both)):
            continue
        shown = "none" if found is None else found
        yield f"at {path}, {keyword} {shown} instead of {wanted}"


def _is_of_others(keyword: str, of: Schema) -> bool:
    """Return whether `keyword` says nothing about values of the type of `of`."""
    kind = "number" if of.get("type") == "integer" else of.get("type")
    return kind is not None and _KINDS.get(keyword, kind) != kind


def _is_within(keyword: str, of: Schema, wanted: Any) -> bool:
    """Return whether the values of `of` are within what one keyword wants."""
    if keyword in _RANGES:
        return _is_in_range(keyword, of, wanted)
    if keyword == "pattern" and isinstance(of, _Value) and isinstance(of["const"], str):
        return _matches(wanted, of["const"])
    # Nothing has a length of less than 0.
    found = of.get(keyword, 0 if keyword in ("minLength", "minItems", "minProperties") else None)
    return found is not None and keyword in _BOUNDS and _BOUNDS[keyword](found, wanted)


def _is_in_range(keyword: str, of: Schema, wanted: Any) -> bool:
    sign = 1 if keyword.endswith("inimum") else -1
    same, other = of.get(keyword), of.get(_RANGES[keyword])
    if same is not None and sign * same >= sign * wanted:
        return True
    if other is None:
        return False
    is_exclusive = keyword.startswith("exclusive")
    return bool(sign * other > sign * wanted or (not is_exclusive and other == wanted))


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:  # Python does not know all that JSON Schema allows
        return False


def _definitions_of(placed: Placed) -> dict[str, Any]:
    """Return the definitions that a schema refers to, directly or not."""
    schema, document = placed
    found: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        for one in subschemas(waiting.pop()):
            name = definition_name(one.get("$ref")) if isinstance(one, Mapping) else None
            if name is not None and name not in found:
                found[name] = document.get("$defs", {}).get(name)
                waiting.append(found[name])
    return found


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


def _name_of(schema: Any) -> str:
    """Say what a schema admits, in short."""
    if not isinstance(schema, Mapping):
        return "nothing" if schema is False else "anything"
    if (options := _options(schema)) is not None:
        return " or ".join(_name_of(option) for option in options)
    if schema.get("type") != "null" and (values := _listed(schema)) is not None:
        return " or ".join(map(_shown, values))
    if "$ref" in schema:
        return str(definition_name(schema["$ref"]) or schema["$ref"])
    name = str(schema.get("title") or schema.get("type", "anything"))
    return f"{name} ({schema['format']})" if "format" in schema else name
