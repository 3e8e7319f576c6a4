"""What events look like, as JSON Schema: of APIs, in files, and when a change breaks a listener."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import msgspec

from lightbus.api import Api
from lightbus.events import Event
from lightbus.exceptions import (
    InvalidEventArguments,
    InvalidSchema,
    PackageMissing,
    did_you_mean,
)
from lightbus.schema_fit import why_not
from lightbus.type_schema import DIALECT, Schema, schemas_of_types
from lightbus.values import decodable, encode_unknown, to_bus

# How many letters of a schema an error shows
_MOST_SHOWN = 200


def schema_of(apis: Iterable[type[Api]]) -> Schema:
    """Return the JSON Schema (draft 2020-12) of an object that holds, by its canonical name, what
    each event of `apis` carries.

    Fields that have a default are not required, though events that are fired here always carry
    them: those that were fired before they existed do not.

    Raises:
        InvalidApi: An event is declared wrongly.
    """
    declared = {
        f"{api.meta.name}.{name}": event for api in apis for name, event in api.events.items()
    }
    types = {
        (name, parameter.name): decodable(parameter.type)
        for name, event in declared.items()
        for parameter in event.parameters.values()
    }
    values, definitions = schemas_of_types(list(types.values()))
    found = dict(zip(types, values, strict=True))
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {
            name: _schema_of_event(event, {p: found[name, p] for p in event.parameters})
            for name, event in declared.items()
        },
        "$defs": definitions,
    }


def read_schema(path: Path) -> Schema:
    """Return the schema in a file, as `schema_of` makes it.

    Raises:
        InvalidSchema: The file can not be read, is no JSON, or is no schema of events.
    """
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InvalidSchema(str(path), f"can not be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidSchema(str(path), f"is no JSON: {error}") from error
    events = found.get("properties") if isinstance(found, dict) else None
    if not isinstance(events, dict) or not all(map(_is_of_event, events.values())):
        raise InvalidSchema(str(path), "has no events in it")
    definitions = found.setdefault("$defs", {})
    for reference in _references_in(found):
        name = str(reference).removeprefix("#/$defs/")
        if not isinstance(definitions, dict) or name not in definitions:
            raise InvalidSchema(str(path), f"refers to {reference!r}, which is not in it")
    return dict(found)


def _is_of_event(schema: Any) -> bool:
    return isinstance(schema, dict) and isinstance(schema.get("properties", {}), dict)


def _references_in(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from (node[key] for key in ("$ref", "$dynamicRef") if key in node)
        for child in node.values():
            yield from _references_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references_in(child)


class LoadedSchemas:
    """The files of JSON Schema (draft 2020-12) that what is fired has to fit."""

    def __init__(self) -> None:
        self._validators: list[tuple[Path, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._validators)

    def load_local(self, path: str | Path) -> None:
        """Have every event that is fired on this bus, and that the file at `path` knows, fit it.

        Args:
            path: A file that `lightbus schema dump` has printed, here or for another service.

        Raises:
            InvalidSchema: The file can not be read, or is no schema of events.
            PackageMissing: The extra ``lightbus[schema]`` is not installed.
        """
        path = Path(path)
        schema = read_schema(path)
        try:
            import jsonschema  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError as error:
            raise PackageMissing("To load a schema file", "schema") from error
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise InvalidSchema(str(path), f"is no JSON Schema: {error.message}") from error
        self._validators.append((path, jsonschema.Draft202012Validator(schema)))

    def check(self, canonical_name: str, fields: Mapping[str, Any]) -> None:
        """Make sure that an event's fields, as JSON values, fit each file that knows the event.

        Raises:
            InvalidEventArguments: They do not; it says where, and which file.
            InvalidSchema: What a file says of the event refers to itself without end.
        """
        for path, validator in self._validators:
            try:
                error = next(validator.iter_errors({canonical_name: fields}), None)
            except RecursionError as endless:
                raise InvalidSchema(str(path), "refers to itself without end") from endless
            if error is not None:
                reason = f"{_told(error)}, by {path}"
                raise InvalidEventArguments(canonical_name, reason=reason)


def _told(error: Any) -> str:
    """Say what does not fit, without the value: it may be a secret."""
    if error.validator == "type":
        said = f"Expected `{error.validator_value}`, got `{type(error.instance).__name__}`"
    elif error.validator == "required":
        said = error.message
    else:
        said = f"{error.validator} is not {str(error.validator_value)[:_MOST_SHOWN]}"
    place = list(error.absolute_path)[1:]
    return f"{said} - at `${''.join(f'[{p}]' if isinstance(p, int) else f'.{p}' for p in place)}`"


def _schema_of_event(event: Event[...], values: Mapping[str, Schema]) -> Schema:
    properties = {
        parameter.name: values[parameter.name]
        if parameter.is_required
        else {**values[parameter.name], **_default_of(parameter.default)}
        for parameter in event.parameters.values()
    }
    return {
        **({"description": event.description} if event.description else {}),
        "type": "object",
        "properties": properties,
        "required": [p.name for p in event.parameters.values() if p.is_required],
        **({"additionalProperties": True} if event.admits_any else {}),
    }


def _default_of(default: Any) -> Schema:
    if default is attrs.NOTHING:  # stands for a factory
        return {}
    try:
        return {"default": msgspec.to_builtins(to_bus(default), enc_hook=encode_unknown)}
    except Exception:  # such as what a dataclass has in the place of a factory
        return {}


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
    """Yield what a listener may not survive, where events were as `before` says and become as
    `after` says.

    Services change at different times. So new events meet old listeners, and those that wait, or
    that an old service fires, meet new ones.

    Args:
        before: A schema that `schema_of` or `read_schema` returned.
        after: Another one.
    """
    events = after.get("properties", {})
    for name, event in before.get("properties", {}).items():
        if name in events:
            yield from _changes_of_event(name, (event, before), (events[name], after))
        else:
            hint = did_you_mean(name, events)
            yield Change(name, "", f"it is gone{'.' if hint else ''}{hint}", _GONE)


_GONE = "Those who listen for it hear of nothing any more."
_REMOVED = "Listeners that require it can not be called."
_REQUIRED = "Events that wait, or that older services fire, do not have it; give it a default."
_WIDER = "Listeners that were written for what it was get what they do not take."
_NARROWER = (
    "Listeners that are written for what it is get what they do not take, from events that wait "
    "or that older services fire."
)


def _changes_of_event(
    name: str, before: tuple[Schema, Schema], after: tuple[Schema, Schema]
) -> Iterator[Change]:
    old, new = before[0].get("properties", {}), after[0].get("properties", {})
    for field, schema in old.items():
        if field not in new:
            yield Change(name, field, "it is gone", _REMOVED)
            continue
        then, now = (schema, before[1]), (new[field], after[1])
        # What has a default is always sent, by those who know of it.
        if reason := why_not(now, then, may_be_missing=True):
            yield Change(name, field, f"it can be what it could not be: {reason}", _WIDER)
        if reason := why_not(then, now):
            yield Change(name, field, f"it can not be what it could be: {reason}", _NARROWER)
    required_before = before[0].get("required", ())
    for field in after[0].get("required", ()):
        if field not in old:
            yield Change(name, field, "it is new and required", _REQUIRED)
        elif field not in required_before:
            yield Change(name, field, "it was optional and is required", _REQUIRED)
    if before[0].get("additionalProperties") is True and "additionalProperties" not in after[0]:
        yield Change(name, "", "it admits no further fields", _REMOVED)
