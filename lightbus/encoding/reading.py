"""How values are read: the type that makes the decoder produce values of a hint."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin

import attrs
import msgspec

from lightbus.encoding import pydantic_types
from lightbus.encoding.class_fields import ClassField, fields_of_class, is_named_tuple, make
from lightbus.encoding.class_types import (
    describer,
    is_array,
    object_type,
    refuse_unknown_fields,
    tag_of,
    tagged_like,
)
from lightbus.encoding.hints import (
    class_of,
    is_wrongly_none,
    key_of_hint,
    meaning_of,
    name_of_hint,
    optional,
)
from lightbus.encoding.own_types import (
    MADE_OF,
    OwnType,
    decode_unknown,
    describe_error,
    described,
    enum_reader,
    is_made_of,
    kinds_of,
    own_type,
    text_of,
)
from lightbus.encoding.writing import is_collection


@attrs.frozen
class Untyped:
    """A part of a hint that cannot be read. Its values remain JSON values.

    Attributes:
        place: Where in the values it is, for example ``"$.order.payment"``.
        reason: Why it cannot be read.
    """

    place: str
    reason: str


@dataclasses.dataclass
class _Object:
    """Stands for a JSON object when the types of a union are distinguished."""


class ReadTypes:
    """Makes types for the decoder, and collects the parts of hints that cannot be read.

    Args:
        is_lax: Whether text is taken for numbers and booleans, and numbers for text.

    Attributes:
        untyped: The parts that `of` could not read.
    """

    def __init__(self, *, is_lax: bool = False) -> None:
        self.untyped: list[Untyped] = []
        self._is_lax = is_lax
        self._classes: dict[Any, OwnType] = {}
        # The hints that are being read now, to detect recursion
        self._aliases: list[Any] = []

    def of(self, hint: Any, place: str) -> Any:
        """Return the type that makes the decoder produce values of `hint`.

        Args:
            hint: A type hint, or a type that stands for one.
            place: Where the value is, for `untyped`.
        """
        if hint is object:
            return Any
        before = len(self.untyped)
        try:
            found = hint if self._is_native(hint) else self._made_of(hint, place)
            if _decodes(found):
                return found
            reason = f"JSON cannot be read as {name_of_hint(hint)}"
        except Exception as error:  # of a hint that is no type, or whose own hints are wrong
            reason = describe_error(error)
        del self.untyped[before:]
        self.untyped.append(Untyped(place, reason))
        return Any

    def _is_native(self, hint: Any) -> bool:
        """Return whether the decoder can read `hint` by itself."""
        return _decodes(hint) and not any(map(self._needs_reader, _hints_within(hint, set())))

    def _needs_reader(self, hint: Any) -> bool:
        class_ = class_of(hint)
        if class_ is None or class_ is msgspec.UnsetType:
            return False
        return (
            hasattr(class_, "__from_bus__")
            or pydantic_types.is_pydantic(class_)
            or is_named_tuple(class_)
            or (self._is_lax and class_ is str)
            or any(is_wrongly_none(one.hint, one.default) for one in fields_of_class(hint) or ())
            or _is_unknown(class_)
        )

    def _made_of(self, hint: Any, place: str) -> Any:
        """Return the type for a hint if the decoder cannot read some part of it by itself."""
        if isinstance(hint, str):
            raise NameError(f"{hint!r} cannot be resolved")  # noqa: TRY004 - it is a name
        if (meaning := meaning_of(hint)) is not hint:
            return self._aliased(hint, meaning, place)
        if get_origin(hint) is Annotated:
            return self._annotated(hint, place)
        if get_origin(hint) in (Union, types.UnionType):
            return self._union(hint, place)
        class_ = class_of(hint)
        if class_ is None:
            return self._generic(hint, place)
        own = self._classes.get(key_of_hint(hint)) or self._own(hint, class_, place)
        if own is None:
            return self._generic(hint, place)
        self._classes[key_of_hint(hint)] = own
        return own

    def _aliased(self, hint: Any, meaning: Any, place: str) -> Any:
        if hint in self._aliases:
            raise TypeError(f"{name_of_hint(hint)} refers to itself")
        self._aliases.append(hint)
        try:
            return self.of(meaning, place)
        finally:
            self._aliases.pop()

    def _generic(self, hint: Any, place: str) -> Any:
        """Return the type for a form of a class or an alias, such as ``list[Order]``."""
        origin: Any = get_origin(hint)
        if origin is None or origin is Literal:
            return hint
        match get_args(hint):
            case (key, item) if isinstance(origin, type) and issubclass(origin, Mapping):
                return self._mapping(hint, key, item, place)
            case args:
                items = (arg if arg is ... else self.of(arg, f"{place}[...]") for arg in args)
                return origin[tuple(items)]

    def _own(self, hint: Any, class_: type[Any], place: str) -> Any:
        """Return the type for a class that has a reader of its own; None where it has none."""
        if (from_bus := getattr(class_, "__from_bus__", None)) is not None:
            return own_type(hint, from_bus, alike=None)
        if pydantic_types.is_pydantic(class_):
            return _read_by_pydantic(hint)
        if issubclass(class_, enum.Enum):
            return own_type(hint, enum_reader(class_), alike=None)
        if (fields := fields_of_class(hint)) is not None:
            return self._class(hint, class_, fields, place)
        if self._is_lax and class_ is str:
            return own_type(str, text_of, alike=str, kinds=(str,), describe=lambda: str)
        return self._subclass(hint, class_, place) if _is_unknown(class_) else None

    def _class(self, hint: Any, class_: type[Any], fields: list[ClassField], place: str) -> OwnType:
        """Return the type for a class some of whose fields need readers of their own."""
        tag = tag_of(class_)
        form = own_type(hint, lambda _: None, alike=_Object if tag is None else tagged_like(class_))
        form.tag = tag
        if is_array(class_):
            form.alike, form.kinds = Union[form.alike, list[Any]], (dict, list)  # noqa: UP007
        # Set first, because a field may have the class itself as its type.
        self._classes[key_of_hint(hint)] = form
        types = {field.name: self._field(field, place) for field in fields}
        values = object_type(class_, fields, types)
        names = {field.key: field.name for field in fields}
        # In an array, the tag comes first.
        order = [*(tag or ())[:1], *names]

        def read(value: Any) -> Any:
            if list in form.kinds and isinstance(value, list):
                value = dict(zip(order, value, strict=False))
            refuse_unknown_fields(class_, value, names)
            found = self._convert(value, values)
            return make(class_, {names[key]: item for key, item in found.items() if key in names})

        form.read = staticmethod(read)
        form.describe = staticmethod(describer(class_, fields, types))
        return form

    def _field(self, field: ClassField, place: str) -> Any:
        is_none = is_wrongly_none(field.hint, field.default)
        return self.of(optional(field.hint) if is_none else field.hint, f"{place}.{field.key}")

    def _subclass(self, hint: Any, class_: Any, place: str) -> Any:
        """Return the type for a subclass of a built-in type, and for a container of a user's."""
        for base, (alike, maker) in MADE_OF.items():
            if issubclass(class_, base):
                return self._converted(hint, alike, functools.partial(maker, class_))
        bases = getattr(class_, "__orig_bases__", ())
        args = get_args(hint) or next(filter(None, map(get_args, bases)), ())
        inner: Any = None
        if issubclass(class_, Mapping):
            inner = dict.__class_getitem__((*args, Any, Any)[:2])
        elif is_collection(class_):
            inner = list.__class_getitem__((*args, Any)[:1])
        if inner is None or not is_made_of(class_, get_origin(inner)()):
            raise TypeError(f"JSON cannot be read as {name_of_hint(hint)}")
        return self._converted(hint, self.of(inner, place), class_)

    def _annotated(self, hint: Any, place: str) -> Any:
        inner = self.of(get_args(hint)[0], place)
        if _decodes(constrained := Annotated[inner, *hint.__metadata__]):
            return constrained
        alike: Any = getattr(inner, "alike", None)
        if alike is not None and _decodes(constrained := Annotated[alike, *hint.__metadata__]):
            if inner.hint is str:  # which numbers do for
                return self._converted(hint, inner, lambda text: self._convert(text, constrained))
            return self._converted(hint, constrained, inner.read)
        if inner is not Any:
            reason = "the constraints do not suit the type, and are not checked"
            self.untyped.append(Untyped(place, reason))
        return inner

    def _mapping(self, hint: Any, key_hint: Any, item_hint: Any, place: str) -> Any:
        key = key_hint if key_hint is str else self.of(key_hint, f"{place}[...]")
        item = self.of(item_hint, f"{place}[...]")
        if not isinstance(key, OwnType):
            return typing.cast("Any", get_origin(hint))[key, item]
        inner = dict.__class_getitem__((key.alike or str, item))
        read = key.read
        return self._converted(hint, inner, lambda found: {read(k): v for k, v in found.items()})

    def _union(self, hint: Any, place: str) -> Any:
        args = tuple(arg for arg in get_args(hint) if arg is not msgspec.UnsetType)
        others = tuple(arg for arg in args if arg is not types.NoneType)
        if all(map(pydantic_types.has_fields, others)):
            own = _read_by_pydantic(Union[others])  # noqa: UP007 - no literal
            return own if others == args else optional(own)
        members = tuple(self.of(arg, place) for arg in args)
        if _decodes(union := Union[members]):  # noqa: UP007 - no literal
            return union
        return self._union_of(hint, members)

    def _union_of(self, hint: Any, members: tuple[Any, ...]) -> OwnType:
        """Return the type for a union whose types differ in the kind of their JSON values."""
        own = [member for member in members if isinstance(member, OwnType)]
        others = tuple(member for member in members if not isinstance(member, OwnType))
        alike = (*others, *(one.alike for one in own))
        is_clear = None not in alike and len(set(alike)) == len(alike)
        if not is_clear or not _decodes(Union[alike]):  # noqa: UP007 - no literal
            raise ValueError(f"JSON does not tell the types of {name_of_hint(hint)} apart")
        other = Union[others] if others else types.NoneType  # noqa: UP007 - no literal

        def read(value: Any) -> Any:
            found = next((one for one in own if one.takes(value)), None)
            return self._convert(value, other) if found is None else found.read(value)

        return own_type(hint, read, alike=None, options=members)

    def _converted(self, hint: Any, inner: Any, maker: Callable[[Any], Any]) -> OwnType:
        """Return the type for the results of `maker`, called with values of the type `inner`."""
        return own_type(
            hint,
            lambda value: maker(self._convert(value, inner)),
            alike=inner,
            kinds=kinds_of(inner),
            describe=lambda: described(inner),
        )

    def _convert(self, value: Any, type_: Any) -> Any:
        return msgspec.convert(
            value, type_, strict=not self._is_lax, str_keys=True, dec_hook=decode_unknown
        )


def parameters_of(types: Mapping[str, Any]) -> Any:
    """Return the type of an object that has values of `types`. Some may be missing."""
    return TypedDict("Parameters", dict(types), total=False)  # type: ignore[operator]


def _decodes(type_: Any) -> bool:
    """Return whether the decoder takes a type."""
    try:
        # Some hints, such as `Final`, are not valid in the `TypedDict` that this one goes into.
        _ = msgspec.json.Decoder(parameters_of({"one": type_}))
    except Exception:  # of a hint that is no type
        return False
    return True


def _hints_within(hint: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield `hint`, the hints that it is made of, and those of the fields of classes in it."""
    key = key_of_hint(hint)
    if key in seen:
        return
    seen.add(key)
    yield hint
    if (meaning := meaning_of(hint)) is not hint:
        yield from _hints_within(meaning, seen)
    args = get_args(hint)
    # The keys of JSON are text.
    for arg in args[1:] if get_origin(hint) is dict and args[0] is str else args:
        yield from _hints_within(arg, seen)
    if not pydantic_types.is_pydantic(hint):
        for field in fields_of_class(hint) or ():
            yield from _hints_within(field.hint, seen)


def _is_unknown(class_: type[Any]) -> bool:
    """Return whether the decoder does not know a class."""
    base = next((base for base in class_.__mro__ if base in MADE_OF), class_)
    if base is not class_ and class_ is not bool and not issubclass(class_, enum.Enum):
        # `type_info` takes the place of a built-in type that something has put there.
        return True
    return isinstance(msgspec.inspect.type_info(class_), msgspec.inspect.CustomType)


def _read_by_pydantic(hint: Any) -> OwnType:
    read = functools.partial(pydantic_types.validate, hint)
    members = get_args(hint) if get_origin(hint) is Union else (hint,)
    is_object = all(map(pydantic_types.is_object, members))
    return own_type(hint, read, alike=_Object if is_object else None)
