"""Returns the JSON Schema of types, as their values are encoded."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import msgspec
from msgspec import inspect as nodes

from lightbus.encoding.custom_types import CustomType, schema_type_of
from lightbus.encoding.json_codec import decode, encode
from lightbus.encoding.pydantic_types import is_pydantic
from lightbus.schema.json_schema import (
    ALWAYS_SENT,
    DEFINITIONS,
    MAX_BYTES,
    MIN_BYTES,
    OFFSETS,
    Schema,
    schema_of_flag,
    schema_of_keys,
)
from lightbus.schema.names import definition_names, name_of_class

_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}

_SCALARS: dict[type[nodes.Type], Schema] = {
    nodes.NoneType: {"type": "null"},
    nodes.BoolType: {"type": "boolean"},
    nodes.IntType: {"type": "integer"},
    nodes.FloatType: {"type": "number"},
    nodes.StrType: {"type": "string"},
    nodes.BytesType: _BASE64,
    nodes.ByteArrayType: _BASE64,
    nodes.MemoryViewType: _BASE64,
    nodes.DateTimeType: {"type": "string", "format": "date-time"},
    nodes.TimeType: {"type": "string", "format": "time"},
    nodes.DateType: {"type": "string", "format": "date"},
    nodes.TimeDeltaType: {"type": "string", "format": "duration"},
    nodes.UUIDType: {"type": "string", "format": "uuid"},
    nodes.DecimalType: {"type": "string", "format": "decimal"},
}

_CONSTRAINTS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}

# The suffixes of the keywords for the length of a value, by the type of the value
_LENGTH_SUFFIXES = {"string": "Length", "array": "Items", "object": "Properties"}

_CLASSES = (
    nodes.StructType,
    nodes.DataclassType,
    nodes.TypedDictType,
    nodes.NamedTupleType,
    nodes.EnumType,
)


def schemas_of_types(types: Sequence[Any]) -> tuple[list[Schema], Schema]:
    """Return the schema of each type, and the definitions to which these refer, by name."""
    type_nodes = [_node_of(type_) for type_ in types]
    writer = _Writer(definition_names(_classes_in(type_nodes)))
    return [writer.schema_of(node) for node in type_nodes], writer.definitions


def _node_of(type_: Any) -> nodes.Type:
    return nodes.type_info(schema_type_of(type_))


def default_of(default: Any) -> Schema:
    """Return the keyword that states a default; nothing if the default has no JSON form."""
    if default is attrs.NOTHING:  # a factory creates the default
        return {}
    try:
        return {"default": _json_value(default)}
    except Exception:  # a user's class may raise any exception
        return {}


def _json_value(value: Any) -> Any:
    """Return the JSON value as which `value` is sent."""
    return decode(encode({"value": value}))["value"]


class _Writer:
    """Writes the schemas of types that `msgspec` describes.

    Attributes:
        definitions: The schemas of classes, to which others refer.
    """

    def __init__(self, names: dict[Any, str]) -> None:
        self.definitions: Schema = {}
        self._names = names

    def schema_of(self, node: nodes.Type) -> Schema:
        if isinstance(node, nodes.Metadata):
            return {**self.schema_of(node.type), **(node.extra_json_schema or {})}
        if isinstance(node, _CLASSES):
            return self._reference(node)
        if isinstance(node, nodes.CustomType):
            return self._of_custom(node.cls)
        if isinstance(node, nodes.UnionType):
            return {"anyOf": _merge_options(map(self.schema_of, sorted(node.types, key=_is_none)))}
        if isinstance(node, nodes.LiteralType):
            return {"enum": list(node.values)}
        schema = _SCALARS.get(type(node)) or self._of_container(node)
        return {**schema, **_constraints(node, schema)}

    def _of_container(self, node: Any) -> Schema:
        if isinstance(node, nodes.CollectionType):
            is_set = isinstance(node, nodes.SetType | nodes.FrozenSetType)
            items = self._unless_any("items", node.item_type)
            return {"type": "array", **items, **({"uniqueItems": True} if is_set else {})}
        if isinstance(node, nodes.TupleType):
            first = [self.schema_of(one) for one in node.item_types]
            item_keywords = {"prefixItems": first, "items": False} if first else {}
            return {
                "type": "array",
                "minItems": len(first),
                "maxItems": len(first),
                **item_keywords,
            }
        if hasattr(node, "key_type"):
            is_enum = isinstance(node.key_type, nodes.EnumType)
            keys = _of_enum(node.key_type.cls) if is_enum else self.schema_of(node.key_type)
            values = self._unless_any("additionalProperties", node.value_type)
            return {"type": "object", **schema_of_keys(keys), **values}
        return {}

    def _unless_any(self, keyword: str, node: nodes.Type) -> Schema:
        return {} if isinstance(node, nodes.AnyType) else {keyword: self.schema_of(node)}

    def _of_custom(self, class_: Any) -> Schema:
        # A schema that accepts any value. An empty schema would mean that there is none.
        unknown = {"title": class_.__name__}
        if isinstance(class_, CustomType) and class_.options:
            return {"anyOf": [self.schema_of(_node_of(option)) for option in class_.options]}
        hint = class_.hint if isinstance(class_, CustomType) else class_
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            return {**unknown, "enum": [_json_value(member) for member in hint]}
        if not any(map(is_pydantic, typing.get_args(hint) or (hint,))):
            return unknown
        from lightbus.schema.pydantic_models import schema_of_model  # noqa: PLC0415 - slow to import

        try:
            schema, definitions = schema_of_model(hint, self._names[class_])
        except Exception:  # pydantic has no schema for the type, or a user's extension raised
            return unknown
        self.definitions.update(definitions)
        return schema

    def _reference(self, node: Any) -> Schema:
        name = self._names[node.cls]
        if name not in self.definitions:
            self.definitions[name] = {}  # the class may refer to itself
            is_enum = isinstance(node, nodes.EnumType)
            self.definitions[name] = _of_enum(node.cls) if is_enum else self._of_class(node)
        return {"$ref": f"{DEFINITIONS}{name}"}

    def _of_class(self, node: Any) -> Schema:
        fields = {field.encode_name: self._of_field(node, field) for field in node.fields}
        required = [field.encode_name for field in node.fields if field.required]
        if (tag := getattr(node, "tag_field", None)) is not None:
            fields, required = {tag: {"enum": [node.tag]}, **fields}, [tag, *required]
        is_tuple = isinstance(node, nodes.NamedTupleType)
        is_closed = is_tuple or getattr(node, "forbid_unknown_fields", False)
        if is_tuple or getattr(node, "array_like", False):
            # Only fields at the end of an array can be omitted.
            last = max((n for n, name in enumerate(fields, 1) if name in required), default=0)
            first = {"prefixItems": list(fields.values())} if fields else {}
            schema = {"type": "array", **first, "minItems": last}
            closed = {"maxItems": len(fields)}
        else:
            schema = {"type": "object", "properties": fields, "required": required}
            closed = {"additionalProperties": False}
        return {**_description_of(node.cls), **schema, **(closed if is_closed else {})}

    def _of_field(self, node: Any, field: nodes.Field) -> Schema:
        schema = self.schema_of(field.type)
        if field.required:
            return schema
        if field.default is not msgspec.NODEFAULT:
            schema |= default_of(field.default)
        elif field.default_factory in (list, dict, set, bytearray):
            schema |= default_of(field.default_factory())
        return {**schema, ALWAYS_SENT: True} if _is_always_sent(node, field) else schema


def _merge_options(options: Iterable[Schema]) -> list[Schema]:
    """Return the options of a union. Those of type string, or of one number type, are merged.

    The decoder checks a string or a number against the constraints of all such options.
    """
    merged_options: dict[Any, Schema] = {}
    for index, option in enumerate(options):
        type_ = option.get("type") if "enum" not in option else None
        key = type_ if type_ in ("string", "integer", "number") else index
        merged_options[key] = {**merged_options.get(key, {}), **option}
    return list(merged_options.values())


def _is_none(node: nodes.Type) -> bool:
    return isinstance(node, nodes.NoneType)


def _constraints(node: Any, schema: Schema) -> Schema:
    constraints = {
        keyword: value
        for name, keyword in _CONSTRAINTS.items()
        if (value := getattr(node, name, None)) is not None and _is_finite(value)
    }
    for end in ("min", "max"):
        length = getattr(node, f"{end}_length", None)
        if length is None:
            continue
        if "contentEncoding" in schema:
            constraints[MIN_BYTES if end == "min" else MAX_BYTES] = length
            length = 4 * ((length + 2) // 3)
        constraints[f"{end}{_LENGTH_SUFFIXES[schema['type']]}"] = length
    if (has_offset := getattr(node, "tz", None)) is not None:
        constraints["pattern"] = OFFSETS[has_offset]
    return constraints


def _is_always_sent(node: Any, field: nodes.Field) -> bool:
    """Return whether an object is always sent with a field that is not required."""
    if isinstance(node, nodes.TypedDictType):
        return False
    class_ = typing.get_origin(node.cls) or node.cls
    if isinstance(node, nodes.StructType) and class_.__struct_config__.omit_defaults:
        return False
    if msgspec.UnsetType in typing.get_args(_hints_of(class_).get(field.name)):
        return False
    # A dataclass stores fields with `init=False` in the class, not in its objects.
    of_class = dataclasses.fields(class_) if dataclasses.is_dataclass(class_) else ()
    return not any(one.name == field.name and not one.init for one in of_class)


def _hints_of(class_: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(class_)
    except Exception:  # a hint may refer to a name that is unknown here
        return {}


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _of_enum(class_: type[enum.Enum]) -> Schema:
    if issubclass(class_, enum.Flag):
        return {**_description_of(class_), **schema_of_flag(class_)}
    values = [member.value for name, member in class_.__members__.items() if member.name == name]
    return {**_description_of(class_), "enum": sorted(values)}


def _description_of(class_: Any) -> Schema:
    """Return the keywords that state the title and the description of a class."""
    name = name_of_class(class_)
    text = inspect.cleandoc(getattr(typing.get_origin(class_) or class_, "__doc__", None) or "")
    # Dataclasses and named tuples without a docstring generate one from their signature.
    is_own = text and text != "An enumeration." and not text.startswith(f"{name}(")
    return {"title": name, **({"description": text} if is_own else {})}


def _classes_in(node: object, seen: set[Any] | None = None) -> Iterator[Any]:
    """Yield the classes in a node of `msgspec.inspect`, or in a list of nodes."""
    seen = set() if seen is None else seen
    if isinstance(node, list | tuple):
        for item in node:
            yield from _classes_in(item, seen)
    elif isinstance(node, msgspec.Struct):
        if isinstance(node, (*_CLASSES, nodes.CustomType)):
            if node.cls in seen:
                return
            seen.add(node.cls)
            yield node.cls
            for option in node.cls.options if isinstance(node.cls, CustomType) else ():
                yield from _classes_in(_node_of(option), seen)
        for name in node.__struct_fields__:
            yield from _classes_in(getattr(node, name), seen)
