"""Whether all values of one JSON Schema are values of another."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lightbus.schema.json_schema import ALWAYS_SENT, definition_name, subschemas
from lightbus.schema.keywords import (
    OneValue,
    Schema,
    constraints_of,
    describe_schema,
    is_about_others,
    is_one_of,
    is_within,
    items_of,
    listed_in,
    options_of,
    parts_of,
    schema_of_value,
)

# A schema, and the document that its references lead into.
Placed = tuple[Any, Schema]

# Keywords that have a method of their own. The values of any other one have to be equal.
_READ = (
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "prefixItems", "items"),
    *("properties", "required", "additionalProperties", "propertyNames", "contentSchema"),
)


def why_not(inner: Placed, outer: Placed, *, as_sent: bool = False) -> str | None:
    """Return why a value of `inner` may not fit `outer`, with its place; None where all fit.

    It may give a reason even if all values fit, because schemas can state the same thing in several
    ways.

    Args:
        inner: A schema.
        outer: Another one.
        as_sent: Whether the values are those that new senders send. These have the fields that
            `inner` marks as always sent, although it does not require them.
    """
    if inner[0] == outer[0] and _definitions_of(inner) == _definitions_of(outer):
        return None
    return _Comparison(as_sent=as_sent).why_not(inner, outer, "$")


class _Comparison:
    """Compares each pair of schemas once, because types may refer to each other.

    A pair that is met again during its own comparison is assumed to fit. If it does not, the
    running comparison finds the reason.
    """

    def __init__(self, *, as_sent: bool) -> None:
        self._as_sent = as_sent
        self._fitting: dict[bytes, None] = {}
        self._failing: dict[bytes, str] = {}

    def why_not(self, inner: Placed, outer: Placed, path: str) -> str | None:
        inner, outer = resolved(inner), resolved(outer)
        if inner[0] is False or not constraints_of(outer[0]):
            return None
        if outer[0] is False:
            return f"at {path}, {describe_schema(inner[0])} instead of nothing"
        pair = msgspec.json.encode([inner[0], outer[0]], order="sorted")
        pair += b"1" if isinstance(inner[0], OneValue) else b"0"
        if pair in self._fitting:
            return None
        if pair in self._failing:
            return self._failing[pair]
        before = len(self._fitting)
        self._fitting[pair] = None
        reason = self._compare(inner, outer, path)
        if reason is not None:
            # The pairs that were found to fit meanwhile may rely on this one.
            for later in list(self._fitting)[before:]:
                del self._fitting[later]
            self._failing[pair] = reason
        return reason

    def _compare(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, defined = inner
        if (options := options_of(of)) is not None:
            return _first(self.why_not((one, defined), outer, path) for one in options)
        if not isinstance(of, OneValue) and (values := listed_in(of)) is not None:
            return _first(
                self.why_not((schema_of_value(one), defined), outer, path) for one in values
            )
        if (parts := parts_of(outer[0])) is not None:
            return _first(self.why_not(inner, (one, outer[1]), path) for one in parts)
        if (parts := parts_of(of)) is not None:
            reasons = [self.why_not((one, defined), outer, path) for one in parts]
            return None if None in reasons else _first(reasons)
        return self._compare_single(inner, outer, path)

    def _compare_single(self, inner: Placed, outer: Placed, path: str) -> str | None:
        """Compare where all values of `inner` are of one kind."""
        of, (to, document) = inner[0], outer
        if (options := options_of(to)) is not None:
            return self._why_none_of(inner, [(one, document) for one in options], path)
        is_other = not _is_of(of.get("type"), to.get("type"))
        if is_other or not is_one_of(of, listed_in(to)):
            return f"at {path}, {describe_schema(of)} instead of {describe_schema(to)}"
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
        names = " or ".join(map(describe_schema, targets))
        return f"at {path}, {describe_schema(inner[0])} instead of {names}"

    def _content(self, inner: Placed, outer: Placed, path: str) -> str | None:
        of, to = (placed[0].get("contentSchema", {}) for placed in (inner, outer))
        return self.why_not((of, inner[1]), (to, outer[1]), path)

    def _items(self, inner: Placed, outer: Placed, path: str) -> str | None:
        (first, more), (wanted, others) = items_of(inner[0]), items_of(outer[0])
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
        # Classes that declare their fields send no others.
        more = inner[0].get("additionalProperties", "properties" not in inner[0])
        others = outer[0].get("additionalProperties", True)
        if missing := [name for name in outer[0].get("required", ()) if not self._has(inner, name)]:
            return f"at {path}.{missing[0]}, it may be missing"
        if others is False and more is not False:
            return f"at {path}, there may be more than {', '.join(to) or 'nothing'}"
        for name in {**of, **to}:
            # A name that one of them does not list is one of its other properties.
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
        is_sent = self._as_sent and isinstance(field, Mapping) and field.get(ALWAYS_SENT) is True
        return is_sent or name in inner[0].get("required", ())

    def _names(self, inner: Placed, outer: Placed, more: Any, path: str) -> str | None:
        """Compare what the names of properties can be."""
        if "propertyNames" not in outer[0]:
            return None
        of, to = (
            ({"allOf": [{"type": "string"}, schema.get("propertyNames", True)]}, document)
            for schema, document in (inner, outer)
        )
        names = [(schema_of_value(name), inner[1]) for name in inner[0].get("properties", ())]
        every = names if more is False else [*names, of]
        return _first(self.why_not(name, to, f"{path} (keys)") for name in every)


def resolved(placed: Placed) -> Placed:
    """Return the schema that a reference leads to; False for one that admits nothing."""
    schema, document = placed
    seen = 0
    definitions = document.get("$defs", {})
    while isinstance(schema, Mapping) and "$ref" in schema and seen <= len(definitions):
        target = definitions.get(definition_name(schema["$ref"]), {})
        beside = {name: value for name, value in constraints_of(schema).items() if name != "$ref"}
        schema = {"allOf": [target, beside]} if beside else target
        seen += 1
    if isinstance(schema, Mapping):
        return schema, document
    # `true` is a schema that admits everything, and `false` one that admits nothing.
    return (False if schema is False else {}), document


def _is_of(inner: Any, outer: Any) -> bool:
    return outer is None or inner == outer or (inner, outer) == ("integer", "number")


def _keywords(inner: Placed, outer: Placed, path: str) -> Iterable[str]:
    """Yield why values of `inner` may violate keywords of `outer`."""
    of, to = inner[0], outer[0]
    for keyword, wanted in constraints_of(to).items():
        if keyword in _READ or is_about_others(keyword, of) or is_within(keyword, of, wanted):
            continue
        found = of.get(keyword)
        of_both = [({keyword: found}, inner[1]), ({keyword: wanted}, outer[1])]
        if found == wanted and operator.eq(*map(_definitions_of, of_both)):
            continue
        shown = "none" if found is None else found
        yield f"at {path}, {keyword} {shown} instead of {wanted}"


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
