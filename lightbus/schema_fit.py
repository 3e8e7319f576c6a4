"""Whether all values of one JSON Schema are values of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]

# A schema, and the document that its references lead into.
Placed = tuple[Any, Schema]

# Of what says nothing about values.
_NOTES = ("title", "description", "default", "examples", "deprecated", "discriminator", "$defs")

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

# Keywords that are read one by one; of any other, only whether it is the same in both is known.
_READ = (
    *("type", "enum", "const", "anyOf", "oneOf", "$ref", *_BOUNDS),
    *("prefixItems", "items", "properties", "required", "additionalProperties"),
)


def why_not(inner: Placed, outer: Placed, *, may_be_missing: bool = False) -> str | None:
    """Return why a value of `inner` need not be one of `outer`, with its place; None where each is.

    It errs on the side of a reason: schemas can say the same in ways that this does not see.

    Args:
        may_be_missing: Whether a field that `inner` does not require, and `outer` does, is none.
    """
    return _Comparison(may_be_missing=may_be_missing).why_not(inner, outer, "$")


class _Comparison:
    """One comparison. Types may refer to each other, so each pair of them is compared once.

    A pair that is met again while it is compared is taken to fit, for else something else does not.
    """

    def __init__(self, *, may_be_missing: bool) -> None:
        self._may_be_missing = may_be_missing
        self._fitting: dict[bytes, None] = {}
        self._failing: dict[bytes, str] = {}

    def why_not(self, inner: Placed, outer: Placed, path: str) -> str | None:
        inner, outer = _resolved(inner), _resolved(outer)
        pair = msgspec.json.encode([inner[0], outer[0]], order="sorted")
        if pair in self._fitting or not _said(outer[0]):
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
        of, to = inner[0], outer[0]
        if (options := _options(of)) is not None:
            return _first(self.why_not((one, inner[1]), outer, path) for one in options)
        if (values := _listed(of)) is not None:
            wrong = [value for value in values if not _is_one_of(value, outer)]
            return f"at {path}, {_shown(wrong[0])} instead of {_name_of(to)}" if wrong else None
        if (options := _options(to)) is not None:
            return self._why_none_of(inner, [(one, outer[1]) for one in options], path)
        if _listed(to) is not None or not _is_of(of.get("type"), to.get("type")):
            return f"at {path}, {_name_of(of)} instead of {_name_of(to)}"
        return (
            _keywords(of, to, path)
            or self._items(inner, outer, path)
            or self._properties(inner, outer, path)
        )

    def _why_none_of(self, inner: Placed, options: list[Placed], path: str) -> str | None:
        reasons = [self.why_not(inner, option, path) for option in options]
        if None in reasons:
            return None
        type_ = inner[0].get("type")
        alike = [
            reason
            for reason, option in zip(reasons, options, strict=True)
            if _resolved(option)[0].get("type") == type_
        ]
        if len(alike) == 1:
            return alike[0]
        names = " or ".join(_name_of(_resolved(option)[0]) for option in options)
        return f"at {path}, {_name_of(inner[0])} instead of {names}"

    def _items(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, to = inner[0].get("items", {}), outer[0].get("items", {})
        wanted = outer[0].get("prefixItems", ())
        for number, item in enumerate(inner[0].get("prefixItems", ())):
            place = wanted[number] if number < len(wanted) else to
            reason = self.why_not((item, inner[1]), (place, outer[1]), f"{path}[{number}]")
            if reason is not None:
                return reason
        if to is False and of is not False:
            return f"at {path}, more items than there can be"
        if of is False:
            return None
        return self.why_not((of, inner[1]), (to, outer[1]), f"{path}[...]")

    def _properties(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, to = inner[0].get("properties", {}), outer[0].get("properties", {})
        more, others = (placed[0].get("additionalProperties", {}) for placed in (inner, outer))
        required = {*inner[0].get("required", ())}
        missing = [name for name in outer[0].get("required", ()) if name not in required]
        if missing and not self._may_be_missing:
            return f"at {path}.{missing[0]}, it may be missing"
        if others is False and more is not False and "additionalProperties" in inner[0]:
            return f"at {path}, there may be more than {', '.join(to) or 'nothing'}"
        for name in {**of, **to}:
            # What is no property of one of them is what its others are.
            if name not in to and others is False:
                return f"at {path}.{name}, which is not known"
            if name not in of and "additionalProperties" not in inner[0]:
                continue
            values = (of.get(name, more), inner[1]), (to.get(name, others), outer[1])
            if (reason := self._unless_none(*values, f"{path}.{name}")) is not None:
                return reason
        return self._unless_none((more, inner[1]), (others, outer[1]), f"{path}[...]")

    def _unless_none(self, inner: Placed, outer: Placed, path: str) -> str | None:
        """Do what `why_not` does, where there can be values on both sides."""
        if inner[0] is False or outer[0] is False:
            return None
        return self.why_not(inner, outer, path)


def _resolved(placed: Placed) -> Placed:
    schema, document = placed
    seen = 0
    while (
        isinstance(schema, Mapping) and "$ref" in schema and seen < len(document.get("$defs", ()))
    ):
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        schema = document.get("$defs", {}).get(name, {})
        seen += 1
    if isinstance(schema, Mapping):
        return schema, document
    # `true` is a schema that admits everything, and `false` one that admits nothing.
    return ({} if schema is not False else {"not": {}}), document


def _said(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name not in _NOTES}


def _options(schema: Schema) -> list[Any] | None:
    found = schema.get("anyOf", schema.get("oneOf"))
    return list(found) if found is not None else None


def _listed(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    return [None] if schema.get("type") == "null" else None


def _is_one_of(value: Any, outer: Placed) -> bool:
    to, document = _resolved(outer)
    if (options := _options(to)) is not None:
        return any(_is_one_of(value, (option, document)) for option in options)
    if (known := _listed(to)) is not None:
        return any(type(value) is type(one) and value == one for one in known)
    return _is_of(_TYPES.get(type(value)), to.get("type"))


def _is_of(inner: Any, outer: Any) -> bool:
    return outer is None or inner == outer or (inner, outer) == ("integer", "number")


def _keywords(of: Schema, to: Schema, path: str) -> str | None:
    """Return which keyword of `to` says what a value of `of` need not be."""
    for keyword, wanted in _said(to).items():
        found = of.get(keyword)
        if found == wanted or (keyword in _READ and keyword not in _BOUNDS):
            continue
        is_narrower = _BOUNDS.get(keyword)
        if found is None or is_narrower is None or not is_narrower(found, wanted):
            shown = "none" if found is None else found
            return f"at {path}, {keyword} {shown} instead of {wanted}"
    return None


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
        return str(schema["$ref"]).removeprefix("#/$defs/")
    name = str(schema.get("title") or schema.get("type", "anything"))
    return f"{name} ({schema['format']})" if "format" in schema else name
