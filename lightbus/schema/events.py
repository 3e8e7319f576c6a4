"""What events look like, as JSON Schema: of APIs, in files, and when a change breaks a listener."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from lightbus.api import Api
from lightbus.encoding.reading import TypeBuilder
from lightbus.events import Event
from lightbus.exceptions import InvalidApi, did_you_mean
from lightbus.schema.compatibility import resolved, why_not
from lightbus.schema.files import LoadedSchemas, read_schema
from lightbus.schema.json_schema import DIALECT, Schema, only_json
from lightbus.schema.types import default_of, schemas_of_types

__all__ = ["Change", "LoadedSchemas", "breaking_changes", "read_schema", "schema_of"]


def schema_of(apis: Iterable[type[Api]]) -> Schema:
    """Return the JSON Schema (draft 2020-12) of an object that holds, by its canonical name, what
    each event of `apis` carries.

    Fields that have a default are not required, because events that were fired before the fields
    existed do not have them. Nested fields that new events always have are marked with
    ``x-lightbus-always-sent``.

    Raises:
        InvalidApi: An event is declared wrongly.
    """
    declared = {
        f"{api.meta.name}.{name}": event for api in apis for name, event in api.events.items()
    }
    builder = TypeBuilder()
    types = {
        (name, parameter.name): builder.build(parameter.type, "$")
        for name, event in declared.items()
        for parameter in event.parameters.values()
    }
    values, definitions = _schemas_of(types)
    found = dict(zip(types, values, strict=True))
    document: Schema = only_json(
        {
            "$schema": DIALECT,
            "type": "object",
            "properties": {
                name: _schema_of_event(event, {p: found[name, p] for p in event.parameters})
                for name, event in declared.items()
            },
            "$defs": definitions,
        }
    )
    return document


def _schemas_of(types: Mapping[tuple[str, str], Any]) -> tuple[list[Schema], Schema]:
    try:
        return schemas_of_types(list(types.values()))
    except Exception:  # a user's class may raise any
        for (event, parameter), type_ in types.items():
            try:
                schemas_of_types([type_])
            except Exception as error:
                raise InvalidApi(
                    f"Event {event} has no JSON Schema: that of its parameter {parameter!r} "
                    f"cannot be made: {type(error).__name__}: {error}."
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
        **({"additionalProperties": True} if event.admits_any else {}),
    }


@attrs.frozen
class Change:
    """A difference between two schemas that breaks a listener.

    Attributes:
        event: The event's canonical name.
        field: The field; empty where it is the whole event.
        what: What has changed.
        why: Whom it breaks.
    """

    event: str
    field: str
    what: str
    why: str

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.event}, field {self.field!r}" if self.field else self.event


def breaking_changes(before: Schema, after: Schema) -> Iterator[Change]:
    """Yield the changes that may break a listener, where events change from `before` to `after`.

    Services change at different times. So new events reach old listeners, and events that wait, or
    that an old service fires, reach new listeners.

    Args:
        before: A schema that `schema_of` or `read_schema` returned.
        after: Another one.
    """
    events = after.get("properties", {})
    for name, event in before.get("properties", {}).items():
        if name in events:
            old, new = resolved((event, before)), resolved((events[name], after))
            yield from _changes_of_event(name, old, new)
        else:
            hint = did_you_mean(name, events)
            yield Change(name, "", f"it is gone{'.' if hint else ''}{hint}", _GONE)


_GONE = "Its listeners receive no more events."
_REMOVED = "Listeners that require it cannot be called."
_REQUIRED = "Events that wait, and events from older services, do not have it. Give it a default."
_WIDER = (
    "Listeners that were written for the old version may receive values that they do not accept."
)
_NARROWER = (
    "Listeners that are written for the new version may receive values that they do not accept: "
    "those of events that wait, or that older services fire."
)


def _changes_of_event(
    name: str, before: tuple[Any, Any], after: tuple[Any, Any]
) -> Iterator[Change]:
    old, new = before[0].get("properties", {}), after[0].get("properties", {})
    for field, schema in old.items():
        if field not in new:
            yield Change(name, field, "it is gone", _REMOVED)
            continue
        then, now = (schema, before[1]), (new[field], after[1])
        if reason := why_not(now, then, as_sent=True):
            yield Change(name, field, f"it admits more than before: {reason}", _WIDER)
        # Events that were fired before a field was added do not have it, whatever its default.
        if reason := why_not(then, now):
            yield Change(name, field, f"it admits less than before: {reason}", _NARROWER)
    required_before = before[0].get("required", ())
    for field in after[0].get("required", ()):
        if field not in old:
            yield Change(name, field, "it is new and required", _REQUIRED)
        elif field not in required_before:
            yield Change(name, field, "it was optional and is required", _REQUIRED)
    if before[0].get("additionalProperties") is True and (
        after[0].get("additionalProperties") is not True
    ):
        yield Change(name, "", "it admits no further fields", _REMOVED)
