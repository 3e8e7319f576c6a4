"""Checks whether all values of one JSON Schema are values of another."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lightbus.schema.json_schema import ALWAYS_SENT, definition_name, subschemas
from lightbus.schema.keywords import (
    OneValue,
    Schema,
    applies_to,
    conditions_of,
    constraints_of,
    describe_schema,
    is_listed,
    items_of,
    listed_values,
    options_of,
    satisfies,
    schema_of_value,
)

# A schema, and the document that contains the definitions to which it refers
LocatedSchema = tuple[Any, Schema]

# Keywords that are compared by a method. Of other keywords, the values have to be equal.
_COMPARED_BY_METHOD = (
    *("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "prefixItems", "items"),
    *("properties", "required", "additionalProperties", "propertyNames", "contentSchema"),
)


def find_mismatch(
    inner: LocatedSchema, outer: LocatedSchema, *, is_sent: bool = False
) -> str | None:
    """Return the path at which a value of `inner` may not fit `outer`, and why; None if all fit.

    A mismatch may be reported although all values fit, because schemas can state the same
    condition in several ways.

    Args:
        inner: A schema.
        outer: Another schema.
        is_sent: Whether the values of `inner` are those that new senders send. Such values have
            the fields that `inner` marks as always sent, although it does not require them.
    """
    if inner[0] == outer[0] and _definitions_of(inner) == _definitions_of(outer):
        return None
    return _Comparison(is_sent=is_sent).find_mismatch(inner, outer, "$")


class _Comparison:
    """Compares each pair of schemas once, because types may refer to each other.

    A pair that occurs again during its own comparison is assumed to fit. If it does not, the
    comparison in progress finds the mismatch.
    """

    def __init__(self, *, is_sent: bool) -> None:
        self._is_sent = is_sent
        self._fitting: dict[bytes, None] = {}
        self._mismatches: dict[bytes, str] = {}

    def find_mismatch(self, inner: LocatedSchema, outer: LocatedSchema, path: str) -> str | None:
        inner, outer = resolve(inner), resolve(outer)
        if inner[0] is False or not constraints_of(outer[0]):
            return None
        if outer[0] is False:
            return f"at {path}, {describe_schema(inner[0])} instead of nothing"
        pair = msgspec.json.encode([inner[0], outer[0]], order="sorted")
        pair += b"1" if isinstance(inner[0], OneValue) else b"0"
        if pair in self._fitting:
            return None
        if pair in self._mismatches:
            return self._mismatches[pair]
        before = len(self._fitting)
        self._fitting[pair] = None
        reason = self._compare(inner, outer, path)
        if reason is not None:
            # The result of pairs that were compared meanwhile may depend on this pair.
            for later in list(self._fitting)[before:]:
                del self._fitting[later]
            self._mismatches[pair] = reason
        return reason

    def _compare(self, inner: LocatedSchema, outer: LocatedSchema, path: str) -> str | None:
        of, defined = inner
        if (options := options_of(of)) is not None:
            return _first(self.find_mismatch((one, defined), outer, path) for one in options)
        if not isinstance(of, OneValue) and (values := listed_values(of)) is not None:
            return _first(
                self.find_mismatch((schema_of_value(one), defined), outer, path) for one in values
            )
        if (conditions := conditions_of(outer[0])) is not None:
            return _first(self.find_mismatch(inner, (one, outer[1]), path) for one in conditions)
        if (conditions := conditions_of(of)) is not None:
            reasons = [self.find_mismatch((one, defined), outer, path) for one in conditions]
            return None if None in reasons else _first(reasons)
        return self._compare_single(inner, outer, path)

    def _compare_single(self, inner: LocatedSchema, outer: LocatedSchema, path: str) -> str | None:
        """Compare schemas if all values of `inner` are of one type."""
        of, (to, document) = inner[0], outer
        if (options := options_of(to)) is not None:
            return self._mismatch_with_all(inner, [(one, document) for one in options], path)
        is_other_type = not _is_subtype(of.get("type"), to.get("type"))
        if is_other_type or not is_listed(of, listed_values(to)):
            return f"at {path}, {describe_schema(of)} instead of {describe_schema(to)}"
        return (
            _first(_keyword_mismatches(inner, outer, path))
            or self._content_mismatch(inner, outer, path)
            or self._items_mismatch(inner, outer, path)
            or self._properties_mismatch(inner, outer, path)
        )

    def _mismatch_with_all(
        self, inner: LocatedSchema, options: list[LocatedSchema], path: str
    ) -> str | None:
        """Return why values of `inner` may fit none of `options`."""
        if inner[0].get("type") == "integer" and any(map(_accepts_integers, options)):
            # In such a union, decoders read an integer as the integer type, and never as a float.
            options = [one for one in options if (resolve(one)[0] or {}).get("type") != "number"]
        reasons = [self.find_mismatch(inner, option, path) for option in options]
        if None in reasons:
            return None
        type_ = inner[0].get("type")
        targets = [resolve(option)[0] for option in options]
        of_same_type = [
            reason
            for reason, option in zip(reasons, targets, strict=True)
            if isinstance(option, Mapping) and option.get("type") == type_
        ]
        if len(of_same_type) == 1:
            return of_same_type[0]
        names = " or ".join(map(describe_schema, targets))
        return f"at {path}, {describe_schema(inner[0])} instead of {names}"

    def _content_mismatch(
        self, inner: LocatedSchema, outer: LocatedSchema, path: str
    ) -> str | None:
        of, to = (located[0].get("contentSchema", {}) for located in (inner, outer))
        return self.find_mismatch((of, inner[1]), (to, outer[1]), path)

    def _items_mismatch(self, inner: LocatedSchema, outer: LocatedSchema, path: str) -> str | None:
        (of_first, of_rest), (to_first, to_rest) = items_of(inner[0]), items_of(outer[0])
        for index in range(max(len(of_first), len(to_first))):
            of = of_first[index] if index < len(of_first) else of_rest
            to = to_first[index] if index < len(to_first) else to_rest
            reason = self.find_mismatch((of, inner[1]), (to, outer[1]), f"{path}[{index}]")
            if reason:
                return reason
        if to_rest is False and of_rest is not False:
            return f"at {path}, more items than are allowed"
        return self.find_mismatch((of_rest, inner[1]), (to_rest, outer[1]), f"{path}[...]")

    def _properties_mismatch(
        self, inner: LocatedSchema, outer: LocatedSchema, path: str
    ) -> str | None:
        of, to = inner[0].get("properties", {}), outer[0].get("properties", {})
        # An object of a class has no other fields than those that the class declares.
        of_rest = inner[0].get("additionalProperties", "properties" not in inner[0])
        to_rest = outer[0].get("additionalProperties", True)
        required = outer[0].get("required", ())
        if missing := [name for name in required if not self._has_field(inner, name)]:
            return f"at {path}.{missing[0]}, it may be missing"
        if to_rest is False and of_rest is not False:
            return f"at {path}, there may be fields other than {', '.join(to) or 'none'}"
        for name in {**of, **to}:
            values = (of.get(name, of_rest), inner[1]), (to.get(name, to_rest), outer[1])
            if values[0][0] is not False and values[1][0] is False:
                return f"at {path}.{name}, an unknown field"
            if reason := self.find_mismatch(*values, f"{path}.{name}"):
                return reason
        return self._names_mismatch(inner, outer, of_rest, path) or self.find_mismatch(
            (of_rest, inner[1]), (to_rest, outer[1]), f"{path}[...]"
        )

    def _has_field(self, inner: LocatedSchema, name: str) -> bool:
        """Return whether every value of `inner` has the field `name`."""
        field = inner[0].get("properties", {}).get(name)
        is_sent = self._is_sent and isinstance(field, Mapping) and field.get(ALWAYS_SENT) is True
        return is_sent or name in inner[0].get("required", ())

    def _names_mismatch(
        self, inner: LocatedSchema, outer: LocatedSchema, of_rest: Any, path: str
    ) -> str | None:
        """Compare the allowed names of properties."""
        if "propertyNames" not in outer[0]:
            return None
        of, to = (
            ({"allOf": [{"type": "string"}, schema.get("propertyNames", True)]}, document)
            for schema, document in (inner, outer)
        )
        names = [(schema_of_value(name), inner[1]) for name in inner[0].get("properties", ())]
        every = names if of_rest is False else [*names, of]
        return _first(self.find_mismatch(name, to, f"{path} (keys)") for name in every)


def resolve(located: LocatedSchema) -> LocatedSchema:
    """Return the schema to which a reference refers; False for a schema that accepts no value."""
    schema, document = located
    steps = 0
    definitions = document.get("$defs", {})
    while isinstance(schema, Mapping) and "$ref" in schema and steps <= len(definitions):
        target = definitions.get(definition_name(schema["$ref"]), {})
        beside = {name: value for name, value in constraints_of(schema).items() if name != "$ref"}
        schema = {"allOf": [target, beside]} if beside else target
        steps += 1
    if isinstance(schema, Mapping):
        return schema, document
    # The schema `true` accepts every value, and the schema `false` accepts none.
    return (False if schema is False else {}), document


def _accepts_integers(located: LocatedSchema) -> bool:
    """Return whether a schema is of integers, such as those of an enum."""
    schema = resolve(located)[0]
    if schema is False:
        return False
    values = listed_values(schema) or ()
    return schema.get("type") == "integer" or any(type(value) is int for value in values)


def _is_subtype(inner: Any, outer: Any) -> bool:
    return outer is None or inner == outer or (inner, outer) == ("integer", "number")


def _keyword_mismatches(inner: LocatedSchema, outer: LocatedSchema, path: str) -> Iterable[str]:
    """Yield why values of `inner` may violate keywords of `outer`."""
    of, to = inner[0], outer[0]
    for keyword, required in constraints_of(to).items():
        if keyword in _COMPARED_BY_METHOD or not applies_to(keyword, of):
            continue
        if satisfies(of, keyword, required):
            continue
        actual = of.get(keyword)
        of_both = [({keyword: actual}, inner[1]), ({keyword: required}, outer[1])]
        if actual == required and operator.eq(*map(_definitions_of, of_both)):
            continue
        actual_text = "none" if actual is None else actual
        yield f"at {path}, {keyword} {actual_text} instead of {required}"


def _definitions_of(located: LocatedSchema) -> dict[str, Any]:
    """Return the definitions to which a schema refers, directly or indirectly."""
    schema, document = located
    definitions: dict[str, Any] = {}
    pending = [schema]
    while pending:
        for one in subschemas(pending.pop()):
            name = definition_name(one.get("$ref")) if isinstance(one, Mapping) else None
            if name is not None and name not in definitions:
                definitions[name] = document.get("$defs", {}).get(name)
                pending.append(definitions[name])
    return definitions


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
