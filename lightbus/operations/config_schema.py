"""Returns the JSON Schema of a config file, with the settings of all installed transports."""

from __future__ import annotations

import msgspec

from lightbus.config import ApiConfig, Document
from lightbus.schema.json_schema import DIALECT, Schema
from lightbus.transport.registry import installed_transports


def schema_of_config() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a config file.

    If a package that a transport needs is missing, the schema accepts any settings for it.
    """
    transports = installed_transports()
    settings = {name: class_.Settings for name, class_ in transports.items() if class_ is not None}
    (document, api, *settings_schemas), definitions = msgspec.json.schema_components(
        (Document, ApiConfig, *settings.values()), ref_template="#/$defs/{name}"
    )
    api_schema = definitions[api["$ref"].removeprefix("#/$defs/")]
    api_schema["properties"]["event_transport"] = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {
            **{name: {} for name in transports},
            **{
                name: {"anyOf": [schema, {"type": "null"}]}
                for name, schema in zip(settings, settings_schemas, strict=True)
            },
        },
    }
    document_schema = definitions.pop(document["$ref"].removeprefix("#/$defs/"))
    document_schema["properties"]["apis"]["additionalProperties"] = api
    for schema in (document_schema, *definitions.values()):
        _allow_variables(schema)
    return {"$schema": DIALECT, **document_schema, "title": "Lightbus", "$defs": definitions}


def _allow_variables(schema: Schema) -> None:
    """Allow a reference to an environment variable, such as ``${PORT}``, for numbers and enums."""
    for name, property_ in schema.get("properties", {}).items():
        options = property_.get("anyOf", [property_])
        if any(
            "enum" in option or option.get("type") in ("integer", "number", "boolean")
            for option in options
        ):
            variable = {"type": "string", "pattern": r"\$\{[^}]*\}"}
            default = {"default": property_.pop("default")} if "default" in property_ else {}
            schema["properties"][name] = {"anyOf": [*options, variable], **default}
