"""Returns the JSON Schema of pydantic's models, as their values are encoded."""

from __future__ import annotations

import enum
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticOmit, core_schema

from lightbus.encoding.pydantic_fields import writes_aliases
from lightbus.schema.json_schema import (
    ALWAYS_SENT,
    DEFINITIONS,
    OFFSETS,
    Schema,
    schema_of_flag,
    schema_of_json_keys,
    schema_of_keys,
)

_ZONES = {"aware": True, "naive": False}


def schema_of_model(class_: Any, name: str) -> tuple[Schema, Schema]:
    """Return the schema of a class of pydantic, and the definitions to which it refers, by name.

    Args:
        class_: The class.
        name: The prefix of the names of the definitions.

    Raises:
        Exception: pydantic has no schema for the class, or a user's extension of it raised.
    """
    schema: Schema = TypeAdapter(class_).json_schema(
        ref_template=f"{DEFINITIONS}{name}-{{model}}",
        mode="serialization",
        by_alias=writes_aliases(class_),
        schema_generator=_Generator,
    )
    definitions = schema.pop("$defs", {})
    return schema, {f"{name}-{model}": one for model, one in definitions.items()}


class _Generator(GenerateJsonSchema):
    """Adds keywords of the bus, and others that pydantic does not write."""

    # A default without a JSON form is omitted.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def model_field_schema(self, schema: core_schema.ModelField) -> Schema:
        return _mark_always_sent(super().model_field_schema(schema), schema)

    def dataclass_field_schema(self, schema: core_schema.DataclassField) -> Schema:
        return _mark_always_sent(super().dataclass_field_schema(schema), schema)

    def computed_field_schema(self, schema: core_schema.ComputedField) -> Schema:
        raise PydanticOmit  # computed fields are not sent

    def enum_schema(self, schema: core_schema.EnumSchema) -> Schema:
        enum_schema = super().enum_schema(schema)
        class_ = schema["cls"]
        if not issubclass(class_, enum.Flag):
            return enum_schema
        del enum_schema["enum"]
        return {**enum_schema, **schema_of_flag(class_)}

    def dict_schema(self, schema: core_schema.DictSchema) -> Schema:
        dict_schema = super().dict_schema(schema)
        names = dict_schema.get("propertyNames")
        if names is not None and self._is_enum_of_numbers(names):
            # pydantic describes the members, which are not the keys that it writes.
            return {**dict_schema, **schema_of_json_keys(names)}
        if "keys_schema" not in schema or names is not None or "patternProperties" in dict_schema:
            return dict_schema
        return {**dict_schema, **schema_of_keys(self.generate_inner(schema["keys_schema"]).copy())}

    def _is_enum_of_numbers(self, names: Schema) -> bool:
        found = self.get_schema_from_definitions(names["$ref"]) if "$ref" in names else names
        return any(not isinstance(member, str) for member in (found or {}).get("enum", ()))

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> Schema:
        return super().datetime_schema(schema) | _offset(schema)

    def time_schema(self, schema: core_schema.TimeSchema) -> Schema:
        return super().time_schema(schema) | _offset(schema)


def _mark_always_sent(field_schema: Schema, field: Any) -> Schema:
    has_default = field["schema"]["type"] == "default"
    # A value that is None although its type does not admit None is not sent.
    is_none = field["schema"].get("default", ...) is None
    admits_none = has_default and field["schema"]["schema"]["type"] in ("nullable", "any")
    is_left_out = field.get("serialization_exclude_if") is not None or (is_none and not admits_none)
    is_sent = has_default and not is_left_out
    return {**field_schema, ALWAYS_SENT: True} if is_sent else field_schema


def _offset(schema: Any) -> Schema:
    has_offset = _ZONES.get(schema.get("tz_constraint"))
    return {} if has_offset is None else {"pattern": OFFSETS[has_offset]}
