"""Builds the types with which the JSON decoder reads values of a type hint."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs
import msgspec

from lightbus.encoding import pydantic_types
from lightbus.encoding.class_fields import ClassField, fields_of_class, make_object
from lightbus.encoding.class_types import (
    is_array,
    json_object_type,
    refuse_unknown_fields,
    schema_type_maker,
    tag_of,
    tag_type,
)
from lightbus.encoding.custom_types import (
    SUBCLASS_READERS,
    CustomType,
    accepts_container,
    custom_type,
    decode_custom,
    describe_error,
    enum_reader,
    json_classes_of,
    read_text,
    schema_type_of,
)
from lightbus.encoding.hints import (
    class_of,
    is_implicitly_optional,
    key_of_hint,
    make_optional,
    name_of_hint,
    resolve_alias,
)
from lightbus.encoding.native_types import is_decodable, is_native, is_unknown
from lightbus.encoding.writing import is_collection


@attrs.frozen
class UnsupportedHint:
    """A part of a type hint that JSON cannot be converted to. Its values stay plain JSON values.

    Attributes:
        path: The path of its values, for example ``"$.order.payment"``.
        reason: Why it is not supported.
    """

    path: str
    reason: str


@dataclasses.dataclass
class _JSONObject:
    """Represents any JSON object when the members of a union are distinguished."""


class TypeBuilder:
    """Builds types for the decoder, and collects the parts of hints that are not supported.

    Args:
        is_lax: Whether text is accepted for numbers and booleans, and numbers for text.

    Attributes:
        unsupported: The parts of hints that `build` replaced by Any.
    """

    def __init__(self, *, is_lax: bool = False) -> None:
        self.unsupported: list[UnsupportedHint] = []
        self._is_lax = is_lax
        self._classes: dict[Any, CustomType] = {}
        # The aliases that are being resolved, to detect recursion
        self._aliases: list[Any] = []

    def build(self, hint: Any, path: str) -> Any:
        """Return the type with which the decoder produces values of `hint`.

        Args:
            hint: A type hint, or a type that this builder returned.
            path: The path of the value, for `unsupported`.
        """
        if hint is object:
            return Any
        before = len(self.unsupported)
        try:
            type_ = hint if is_native(hint, is_lax=self._is_lax) else self._custom(hint, path)
            if is_decodable(type_):
                return type_
            reason = f"JSON cannot be read as {name_of_hint(hint)}"
        except Exception as error:  # the hint is not valid, or the hints of its fields are not
            reason = describe_error(error)
        del self.unsupported[before:]
        self.unsupported.append(UnsupportedHint(path, reason))
        return Any

    def _custom(self, hint: Any, path: str) -> Any:
        """Return the type for a hint that the decoder does not fully support by itself."""
        if isinstance(hint, str):
            raise NameError(f"{hint!r} cannot be resolved")  # noqa: TRY004 - it is a name
        if (target := resolve_alias(hint)) is not hint:
            return self._alias(hint, target, path)
        if get_origin(hint) is Annotated:
            return self._annotated(hint, path)
        if get_origin(hint) in (Union, types.UnionType):
            return self._union(hint, path)
        class_ = class_of(hint)
        if class_ is None:
            return self._generic(hint, path)
        custom = self._classes.get(key_of_hint(hint)) or self._class(hint, class_, path)
        if custom is None:
            return self._generic(hint, path)
        self._classes[key_of_hint(hint)] = custom
        return custom

    def _alias(self, hint: Any, target: Any, path: str) -> Any:
        if hint in self._aliases:
            raise TypeError(f"{name_of_hint(hint)} refers to itself")
        self._aliases.append(hint)
        try:
            return self.build(target, path)
        finally:
            self._aliases.pop()

    def _generic(self, hint: Any, path: str) -> Any:
        """Return the type for a generic form of a class or alias, such as ``list[Order]``."""
        origin: Any = get_origin(hint)
        if origin is None or origin is Literal:
            return hint
        match get_args(hint):
            case (key, item) if isinstance(origin, type) and issubclass(origin, Mapping):
                return self._mapping(hint, key, item, path)
            case args:
                items = (arg if arg is ... else self.build(arg, f"{path}[...]") for arg in args)
                return origin[tuple(items)]

    def _class(self, hint: Any, class_: type[Any], path: str) -> Any:
        """Return the type for a class that needs a reader; None if it needs none."""
        if (from_bus := getattr(class_, "__from_bus__", None)) is not None:
            return custom_type(hint, from_bus, json_type=None)
        if pydantic_types.is_pydantic(class_):
            return _pydantic_type(hint)
        if issubclass(class_, enum.Enum):
            return custom_type(hint, enum_reader(class_), json_type=None)
        if (fields := fields_of_class(hint)) is not None:
            return self._class_with_fields(hint, class_, fields, path)
        if self._is_lax and class_ is str:
            return custom_type(
                str, read_text, json_type=str, json_classes=(str,), make_schema_type=lambda: str
            )
        return self._subclass(hint, class_, path) if is_unknown(class_) else None

    def _class_with_fields(
        self, hint: Any, class_: type[Any], fields: list[ClassField], path: str
    ) -> CustomType:
        """Return the type for a class that has fields, some of which need readers."""
        tag = tag_of(class_)
        json_type = _JSONObject if tag is None else tag_type(class_)
        custom = custom_type(hint, lambda _: None, json_type=json_type)
        custom.tag = tag
        if is_array(class_):
            custom.json_type = Union[json_type, list[Any]]  # noqa: UP007 - no literal
            custom.json_classes = (dict, list)
        # Set first, because a field may have the class itself as its type.
        self._classes[key_of_hint(hint)] = custom
        types = {field.name: self._field(field, path) for field in fields}
        object_type = json_object_type(class_, fields, types)
        names = {field.key: field.name for field in fields}
        # In an array, the tag comes first.
        array_keys = [*(tag or ())[:1], *names]

        def read(value: Any) -> Any:
            if list in custom.json_classes and isinstance(value, list):
                value = dict(zip(array_keys, value, strict=False))
            refuse_unknown_fields(class_, value, names)
            items = self._convert(value, object_type).items()
            return make_object(class_, {names[key]: item for key, item in items if key in names})

        custom.read = staticmethod(read)
        custom.make_schema_type = staticmethod(schema_type_maker(class_, fields, types))
        return custom

    def _field(self, field: ClassField, path: str) -> Any:
        is_optional = is_implicitly_optional(field.hint, field.default)
        hint = make_optional(field.hint) if is_optional else field.hint
        return self.build(hint, f"{path}.{field.key}")

    def _subclass(self, hint: Any, class_: Any, path: str) -> Any:
        """Return the type for a subclass of a built-in type, or for a user's container."""
        for base, (json_type, convert) in SUBCLASS_READERS.items():
            if issubclass(class_, base):
                return self._converting_type(hint, json_type, functools.partial(convert, class_))
        bases = getattr(class_, "__orig_bases__", ())
        args = get_args(hint) or next(filter(None, map(get_args, bases)), ())
        inner: Any = None
        if issubclass(class_, Mapping):
            inner = dict.__class_getitem__((*args, Any, Any)[:2])
        elif is_collection(class_):
            inner = list.__class_getitem__((*args, Any)[:1])
        if inner is None or not accepts_container(class_, get_origin(inner)()):
            raise TypeError(f"JSON cannot be read as {name_of_hint(hint)}")
        return self._converting_type(hint, self.build(inner, path), class_)

    def _annotated(self, hint: Any, path: str) -> Any:
        inner = self.build(get_args(hint)[0], path)
        if is_decodable(constrained_type := Annotated[inner, *hint.__metadata__]):
            return constrained_type
        json_type: Any = getattr(inner, "json_type", None)
        constrained_type = Annotated[json_type, *hint.__metadata__]
        if json_type is not None and is_decodable(constrained_type):
            if inner.hint is str:  # `inner` also accepts numbers, and reads them as text
                check = functools.partial(self._convert, type_=constrained_type)
                return self._converting_type(hint, inner, check)
            return self._converting_type(hint, constrained_type, inner.read)
        if inner is not Any:
            reason = "the constraints do not suit the type, and are not checked"
            self.unsupported.append(UnsupportedHint(path, reason))
        return inner

    def _mapping(self, hint: Any, key_hint: Any, item_hint: Any, path: str) -> Any:
        key = key_hint if key_hint is str else self.build(key_hint, f"{path}[...]")
        item = self.build(item_hint, f"{path}[...]")
        if not isinstance(key, CustomType):
            return typing.cast("Any", get_origin(hint))[key, item]
        inner = dict.__class_getitem__((key.json_type or str, item))
        read = key.read
        return self._converting_type(
            hint, inner, lambda items: {read(k): v for k, v in items.items()}
        )

    def _union(self, hint: Any, path: str) -> Any:
        args = tuple(arg for arg in get_args(hint) if arg is not msgspec.UnsetType)
        others = tuple(arg for arg in args if arg is not types.NoneType)
        if all(map(pydantic_types.has_fields, others)):
            custom = _pydantic_type(Union[others])  # noqa: UP007 - no literal
            return custom if others == args else make_optional(custom)
        members = tuple(self.build(arg, path) for arg in args)
        if is_decodable(union := Union[members]):  # noqa: UP007 - no literal
            return union
        return self._custom_union(hint, members)

    def _custom_union(self, hint: Any, members: tuple[Any, ...]) -> CustomType:
        """Return the type for a union whose members are distinguished by their JSON values."""
        custom = [member for member in members if isinstance(member, CustomType)]
        native = tuple(member for member in members if not isinstance(member, CustomType))
        json_types = (*native, *(member.json_type for member in custom))
        is_clear = None not in json_types and len(set(json_types)) == len(json_types)
        if not is_clear or not is_decodable(Union[json_types]):  # noqa: UP007 - no literal
            raise ValueError(f"JSON does not tell the types of {name_of_hint(hint)} apart")
        native_union = Union[native] if native else types.NoneType  # noqa: UP007 - no literal

        def read(value: Any) -> Any:
            member = next((one for one in custom if one.accepts(value)), None)
            return self._convert(value, native_union) if member is None else member.read(value)

        return custom_type(hint, read, json_type=None, options=members)

    def _converting_type(self, hint: Any, inner: Any, convert: Callable[[Any], Any]) -> CustomType:
        """Return the type that reads values of the type `inner`, and then calls `convert`."""
        return custom_type(
            hint,
            lambda value: convert(self._convert(value, inner)),
            json_type=inner,
            json_classes=json_classes_of(inner),
            make_schema_type=lambda: schema_type_of(inner),
        )

    def _convert(self, value: Any, type_: Any) -> Any:
        return msgspec.convert(
            value, type_, strict=not self._is_lax, str_keys=True, dec_hook=decode_custom
        )


def _pydantic_type(hint: Any) -> CustomType:
    read = functools.partial(pydantic_types.validate, hint)
    members = get_args(hint) if get_origin(hint) is Union else (hint,)
    is_object = all(map(pydantic_types.is_object, members))
    return custom_type(hint, read, json_type=_JSONObject if is_object else None)
