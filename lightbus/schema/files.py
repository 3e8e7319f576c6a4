"""Reads schemas of events from files, and checks fired events against such files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from lightbus.encoding.json_input import DuplicateKey, read_json
from lightbus.exceptions import ConfigError, InvalidEventArguments
from lightbus.schema.json_schema import (
    ALWAYS_SENT,
    BITS,
    MAX_BYTES,
    MIN_BYTES,
    Schema,
    definition_name,
    subschemas,
    with_subschemas,
)

# The most characters of a schema that an error quotes
_MAX_QUOTED = 200

# The most levels of nested schemas in a file. Nested classes are definitions, and add no level.
_MAX_DEPTH = 64

_Type = Literal["string", "boolean", "integer", "number", "array", "object", "null"]
_Length = Annotated[int, msgspec.Meta(ge=0)]
_Schemas = Annotated[list["_Node | bool"], msgspec.Meta(min_length=1)]


class _Node(msgspec.Struct, rename="camel"):
    """The keywords of a JSON Schema that the bus reads, and the types of their values."""

    ref: str = msgspec.field(name="$ref", default="")
    defs: dict[str, _Node | bool] = msgspec.field(name="$defs", default_factory=dict)
    type: _Type | list[_Type] = "null"
    enum: Annotated[list[Any], msgspec.Meta(min_length=1)] = []
    format: str = ""
    pattern: str = ""
    title: str = ""
    description: str = ""
    any_of: _Schemas = []
    one_of: _Schemas = []
    all_of: _Schemas = []
    not_: _Node | bool = msgspec.field(name="not", default=True)
    properties: dict[str, _Node | bool] = {}
    pattern_properties: dict[str, _Node | bool] = {}
    dependent_schemas: dict[str, _Node | bool] = {}
    required: list[str] = []
    additional_properties: _Node | bool = True
    property_names: _Node | bool = True
    prefix_items: list[_Node | bool] = []
    items: _Node | bool = True
    content_schema: _Node | bool = True
    minimum: float = 0
    maximum: float = 0
    exclusive_minimum: float = 0
    exclusive_maximum: float = 0
    multiple_of: Annotated[float, msgspec.Meta(gt=0)] = 1
    min_length: _Length = 0
    max_length: _Length = 0
    min_items: _Length = 0
    max_items: _Length = 0
    min_properties: _Length = 0
    max_properties: _Length = 0
    always_sent: bool = msgspec.field(name=ALWAYS_SENT, default=False)
    bits: int = msgspec.field(name=BITS, default=0)
    min_bytes: _Length = msgspec.field(name=MIN_BYTES, default=0)
    max_bytes: _Length = msgspec.field(name=MAX_BYTES, default=0)


class _Document(msgspec.Struct):
    properties: dict[str, Any]
    definitions: dict[str, Any] = msgspec.field(name="$defs", default_factory=dict)


def read_schema(path: Path) -> Schema:
    """Read a file that contains the result of `schema_of`.

    Raises:
        ConfigError: The file cannot be read, is not JSON, has a duplicate key, or is not a schema
            of events.
    """
    try:
        text = path.read_text("utf-8")
        content = msgspec.json.decode(text)
        read_json(text)
        document = msgspec.convert(content, _Document)
    except OSError as error:
        raise _invalid(path, f"it cannot be read: {error.strerror}") from error
    except DuplicateKey as error:
        raise _invalid(path, f"the key {error.key!r} is a duplicate") from error
    except msgspec.ValidationError as error:
        raise _invalid(path, f"it has no events: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"it is not JSON: {error}") from error
    for kind, schemas in (("event", document.properties), ("definition", document.definitions)):
        for name, schema in schemas.items():
            if (defect := _find_defect(schema, document, is_event=kind == "event")) is not None:
                raise _invalid(path, f"{kind} {name!r} {defect}")
    return {**content, "$defs": document.definitions}


def _invalid(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"not a valid schema of events: {problem}. `lightbus schema dump` prints a valid one.",
        source=str(path),
    )


def _find_defect(schema: Any, document: _Document, *, is_event: bool) -> str | None:
    """Return why the schema of an event, or a definition, is not valid; None if it is valid."""
    try:
        msgspec.convert(schema, _Node if is_event else _Node | bool)
    except msgspec.ValidationError as error:
        return f"is malformed: {error}"
    except RecursionError:
        return "is nested too deeply"
    if _depth_of(schema) > _MAX_DEPTH:
        return "is nested too deeply"
    for reference in _references_in(schema):
        if definition_name(reference) not in document.definitions:
            return f"refers to {reference!r}, which is not in the file"
    return None


def _depth_of(schema: Any) -> int:
    depth, level = 0, [schema]
    while level and depth <= _MAX_DEPTH:
        within: list[Any] = []
        for one in level:
            with_subschemas(one, within.append)
        depth, level = depth + 1, within
    return depth


def _references_in(schema: Any) -> Iterator[Any]:
    for one in subschemas(schema):
        if isinstance(one, dict):
            yield from (one[key] for key in ("$ref", "$dynamicRef") if key in one)


class LoadedSchemas:
    """Checks fired events against files of JSON Schema (draft 2020-12)."""

    def __init__(self) -> None:
        self._validators: list[tuple[Path, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._validators)

    def load_local(self, path: str | Path) -> None:
        """Check the events that are fired on this bus from now on against a schema file.

        Events that the file does not describe are not checked.

        Args:
            path: A file with the output of `lightbus schema dump`, of this or another service.

        Raises:
            ConfigError: The file cannot be read or is not a schema of events, or the extra
                ``lightbus[schema]`` is not installed.
        """
        path = Path(path)
        schema = read_schema(path)
        try:
            import jsonschema  # noqa: PLC0415 - part of an extra
        except ModuleNotFoundError as error:
            raise ConfigError(
                "Schema files need the extra `schema`. Install it: pip install 'lightbus[schema]'."
            ) from error
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise _invalid(path, error.message) from error
        self._validators.append((path, jsonschema.Draft202012Validator(schema)))

    def check(self, canonical_name: str, fields: Mapping[str, Any]) -> None:
        """Check the fields of an event against each file that describes the event.

        Args:
            canonical_name: The canonical name of the event.
            fields: The JSON values of the fields.

        Raises:
            InvalidEventArguments: A field does not fit. The error states its path and the file.
            ConfigError: The schema of the event refers to itself without end.
        """
        for path, validator in self._validators:
            try:
                error = next(validator.iter_errors({canonical_name: fields}), None)
            except RecursionError as endless:
                raise _invalid(
                    path, f"event {canonical_name!r} refers to itself without end"
                ) from endless
            if error is not None:
                reason = f"{_describe_error(error)}, by {path}"
                raise InvalidEventArguments(canonical_name, reason=reason)


def _describe_error(error: Any) -> str:
    """Describe a validation error without the rejected value, which may be a secret."""
    if error.validator == "type":
        reason = f"Expected `{error.validator_value}`, got `{type(error.instance).__name__}`"
    elif error.validator == "required":
        reason = error.message
    else:
        reason = f"{error.validator} is not {str(error.validator_value)[:_MAX_QUOTED]}"
    steps = list(error.absolute_path)[1:]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"{reason} - at `${path}`"
