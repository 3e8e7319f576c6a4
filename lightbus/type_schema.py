"""JSON Schemas of types, as their values travel."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from datetime import datetime, time
from typing import Annotated, Any

import msgspec

from lightbus.values import mapped

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_REFERENCE = "#/$defs/"

_FORMATS = {datetime: "date-time", time: "time"}


def schemas_of_types(types: Sequence[Any]) -> tuple[list[Schema], Schema]:
    """Return the schema of each type, and what these refer to, by name."""
    classes = list(_classes_in([msgspec.inspect.type_info(type_) for type_ in types]))
    dated = [(class_, *field) for class_ in classes for field in _dated_fields(class_)]
    # All at once, for the names of definitions depend on what else there is.
    found, definitions = _schemas(
        [*map(_with_formats, types), *classes, *(hint for _, _, hint in dated)]
    )
    schemas = found[: len(types)]
    references = dict(zip(classes, found[len(types) :], strict=False))
    described = found[len(types) + len(classes) :]
    for (class_, name, _), schema in zip(dated, described, strict=True):
        definition = definitions[references[class_]["$ref"].removeprefix(_REFERENCE)]
        if name in definition.get("properties", {}):
            definition["properties"][name].update(schema)
    for schema in [*schemas, *list(definitions.values())]:
        _lift_definitions(schema, definitions)
    return schemas, definitions


def _schemas(types: Sequence[Any]) -> tuple[list[Schema], Schema]:
    found, definitions = msgspec.json.schema_components(
        types, schema_hook=_of_unknown, ref_template=f"{_REFERENCE}{{name}}"
    )
    return list(found), definitions


def _of_unknown(type_: Any) -> Schema:
    # One that says nothing; an empty one would mean that there is none.
    unknown = {"title": type_.__name__}
    if not hasattr(type_, "model_json_schema"):
        return unknown
    # What models refer to has the model's name before its own, for others have the same names.
    prefix = f"{type_.__module__}.{type_.__qualname__}.".replace("<locals>.", "")
    try:
        schema: Schema = type_.model_json_schema(ref_template=f"{_REFERENCE}{prefix}{{model}}")
    except Exception:  # pydantic has none for some types, and users may add to what it makes
        return unknown
    if "$defs" in schema:
        schema["$defs"] = {f"{prefix}{name}": one for name, one in schema["$defs"].items()}
    return schema


def _lift_definitions(node: Any, definitions: Schema) -> None:
    """Move the definitions that pydantic puts beside each model to where references look."""
    if isinstance(node, dict):
        definitions.update(node.pop("$defs", {}))
    for child in list(node.values()) if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            _lift_definitions(child, definitions)


def _with_formats(hint: Any) -> Any:
    # A generic class has a definition of its own, and its fields are described there.
    return mapped(hint, _with_format, is_whole=lambda origin: hasattr(origin, "__parameters__"))


def _with_format(type_: Any) -> Any:
    # Left out by `msgspec`, as such text may lack the offset from UTC that RFC 3339 wants.
    format_ = _FORMATS.get(type_) if isinstance(type_, type) else None
    if format_ is None:
        return type_
    return Annotated[type_, msgspec.Meta(extra_json_schema={"format": format_})]


def _dated_fields(class_: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a class of which `_with_formats` has something to say, as they travel."""
    names = getattr(class_, "__struct_encode_fields__", ())
    travels_as = dict(zip(getattr(class_, "__struct_fields__", ()), names, strict=True))
    for name, hint in _hints_of(class_).items():
        described = _with_formats(hint)
        if described is not hint:
            yield travels_as.get(name, name), described


def _hints_of(class_: Any) -> dict[str, Any]:
    """Return the types of a class's fields; of ``Box[int]``, with what its variables stand for."""
    origin = typing.get_origin(class_) or class_
    meant = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(class_), strict=False))
    hints = typing.get_type_hints(origin, include_extras=True)
    return {name: _with_meant(hint, meant) for name, hint in hints.items()}


def _with_meant(hint: Any, meant: dict[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return meant.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if not meant or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(meant.get(variable, variable) for variable in variables)]


def _classes_in(node: object, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield the classes with fields that a description by `msgspec` is of."""
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, list | tuple):
        for item in node:
            yield from _classes_in(item, seen)
    elif isinstance(node, msgspec.Struct):
        class_ = getattr(node, "cls", None)
        if class_ is not None and not isinstance(node, msgspec.inspect.CustomType):
            yield class_
        for name in node.__struct_fields__:
            yield from _classes_in(getattr(node, name), seen)
