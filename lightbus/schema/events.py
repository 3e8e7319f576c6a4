"""Returns the JSON Schema of events, and finds the changes that break a listener."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from lightbus.api import Api
from lightbus.encoding.reading import TypeBuilder
from lightbus.events import Event
from lightbus.exceptions import ApiError
from lightbus.names import did_you_mean
from lightbus.schema.compatibility import find_mismatch, resolve
from lightbus.schema.files import LoadedSchemas, read_schema
from lightbus.schema.json_schema import DIALECT, Schema, without_non_json
from lightbus.schema.types import default_of, schemas_of_types

__all__ = ["Change", "LoadedSchemas", "breaking_changes", "read_schema", "schema_of"]


def schema_of(apis: Iterable[type[Api]]) -> Schema:
    """Return the JSON Schema (draft 2020-12) of the events of `apis`.

    The schema describes an object that has a property for each event, under its canonical name.

    Fields with a default are not required, because events that were fired before the fields
    existed do not have them. Nested fields that new events always have are marked with
    ``x-lightbus-always-sent``.

    Raises:
        ApiError: A declaration is not valid.
    """
    events = {
        f"{api.meta.name}.{name}": event for api in apis for name, event in api.events.items()
    }
    builder = TypeBuilder()
    types = {
        (name, parameter.name): builder.build(parameter.type, "$")
        for name, event in events.items()
        for parameter in event.parameters.values()
    }
    values, definitions = _schemas_of(types)
    schemas = dict(zip(types, values, strict=True))
    document: Schema = without_non_json(
        {
            "$schema": DIALECT,
            "type": "object",
            "properties": {
                name: _schema_of_event(event, {p: schemas[name, p] for p in event.parameters})
                for name, event in events.items()
            },
            "$defs": definitions,
        }
    )
    return document


def _schemas_of(types: Mapping[tuple[str, str], Any]) -> tuple[list[Schema], Schema]:
    try:
        return schemas_of_types(list(types.values()))
    except Exception:  # a user's class may raise any exception
        for (event, parameter), type_ in types.items():
            try:
                schemas_of_types([type_])
            except Exception as error:
                raise ApiError(
                    f"Event {event} has no JSON Schema, because the schema of its parameter "
                    f"{parameter!r} cannot be generated: {type(error).__name__}: {error}."
                ) from error
        raise


def _schema_of_event(event: Event[...], values: Mapping[str, Schema]) -> Schema:
    properties = {
        parameter.name: values[parameter.name]
        if parameter.is_required
        else {**values[parameter.name], **default_of(parameter.default)}
        for parameter in event.parameters.values()
    }
    return {
        **({"description": event.description} if event.description else {}),
        "type": "object",
        "properties": properties,
        "required": [p.name for p in event.parameters.values() if p.is_required],
        **({"additionalProperties": True} if event.allows_extra else {}),
    }


@attrs.frozen
class Change:
    """A difference between two schemas that breaks a listener.

    Attributes:
        event: The canonical name of the event.
        field: The name of the field; empty if the whole event changed.
        difference: What changed.
        consequence: Which listeners break, and the remedy if there is one.
    """

    event: str
    field: str
    difference: str
    consequence: str

    @property
    def location(self) -> str:
        """The event and the field, for messages."""
        return f"{self.event}, field {self.field!r}" if self.field else self.event


def breaking_changes(before: Schema, after: Schema) -> Iterator[Change]:
    """Yield the changes from `before` to `after` that may break a listener.

    Services are not updated at the same time. Listeners of an old version may receive new events,
    and listeners of the new version may receive old events, from a queue or from an old service.

    Args:
        before: A schema that `schema_of` or `read_schema` returned.
        after: Another such schema.
    """
    events = after.get("properties", {})
    for name, event in before.get("properties", {}).items():
        if name in events:
            old, new = resolve((event, before)), resolve((events[name], after))
            yield from _changes_of_event(name, old, new)
        else:
            hint = did_you_mean(name, events)
            difference = f"it was removed{'.' if hint else ''}{hint}"
            yield Change(name, "", difference, _EVENT_REMOVED)


_EVENT_REMOVED = "Its listeners no longer receive events."
_FIELD_REMOVED = "Handlers that require it cannot be called."
_REQUIRED = "Events in queues, and events from older services, do not have it. Give it a default."
_WIDER = "Listeners of the old version may receive values that they do not accept."
_NARROWER = (
    "Listeners of the new version may receive values that they do not accept: from events in "
    "queues, or from older services."
)


def _changes_of_event(
    name: str, before: tuple[Any, Any], after: tuple[Any, Any]
) -> Iterator[Change]:
    old, new = before[0].get("properties", {}), after[0].get("properties", {})
    for field, schema in old.items():
        if field not in new:
            yield Change(name, field, "it was removed", _FIELD_REMOVED)
            continue
        old_schema, new_schema = (schema, before[1]), (new[field], after[1])
        if reason := find_mismatch(new_schema, old_schema, is_sent=True):
            yield Change(name, field, f"it accepts more values than before: {reason}", _WIDER)
        # Events that were fired before a nested field was added do not have that field.
        if reason := find_mismatch(old_schema, new_schema):
            yield Change(name, field, f"it accepts fewer values than before: {reason}", _NARROWER)
    required_before = before[0].get("required", ())
    for field in after[0].get("required", ()):
        if field not in old:
            yield Change(name, field, "it is new and required", _REQUIRED)
        elif field not in required_before:
            yield Change(name, field, "it was optional and is now required", _REQUIRED)
    if before[0].get("additionalProperties") is True and (
        after[0].get("additionalProperties") is not True
    ):
        yield Change(name, "", "it no longer accepts other fields", _FIELD_REMOVED)
