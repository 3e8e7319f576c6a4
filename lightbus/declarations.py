"""Reads the parameters of an event from the method or class that declares it."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import inspect
import keyword
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin

import attrs
import msgspec

from lightbus.encoding import pydantic_fields
from lightbus.encoding.class_fields import has_fields, hints_of
from lightbus.encoding.hints import admits_none, make_optional
from lightbus.exceptions import ApiError


class _Required(enum.Enum):
    """Marks a parameter without a default, because None is a valid default."""

    REQUIRED = "required"


@attrs.frozen
class Parameter:
    """One named value of an event.

    Attributes:
        name: A Python identifier; the key in the event's JSON body.
        annotation: The type of the value.
        default: The value that is sent if `fire` is called without one. If the annotation admits
            ``None``, the default is ``None`` unless another is given.

    Raises:
        ApiError: `name` is not an identifier, or is a keyword of Python, or `default` cannot be
            encoded.
    """

    name: str
    annotation: Any = Any
    default: Any = _Required.REQUIRED

    def __attrs_post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or not self.name.isidentifier()
            or keyword.iskeyword(self.name)
        ):
            raise ApiError(f"Invalid parameter name {self.name!r}: it is not a Python identifier.")
        if self.default is msgspec.UNSET:
            raise ApiError(
                f"Parameter {self.name!r} has the default UNSET, which cannot be encoded as JSON. "
                "Use another default, such as None."
            )
        if self.default is _Required.REQUIRED and admits_none(self.annotation):
            object.__setattr__(self, "default", None)

    @property
    def is_required(self) -> bool:
        """Whether `fire` must be called with this value."""
        return self.default is _Required.REQUIRED

    @property
    def type(self) -> Any:
        """The type of the value. It includes None if the default is None."""
        return make_optional(self.annotation) if self.default is None else self.annotation


@attrs.frozen
class WildcardParameter:
    """Allows an event to have any other parameters. Listed among the parameters of the event."""


@attrs.frozen
class Declaration:
    """The parameters that a method or a class declares.

    Attributes:
        items: The parameters.
        positional: The names of parameters that `fire` accepts as positional arguments, in order.
        values: Takes the arguments of `fire` and returns the values to send, by parameter; raises
            the errors of the class. None if the arguments are sent unchanged.
    """

    items: tuple[Parameter | WildcardParameter, ...]
    positional: tuple[str, ...]
    values: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def is_class(declaration: Any) -> bool:
    """Return whether `declaration` is a class, or a generic form of one."""
    return isinstance(declaration, type) or has_fields(get_origin(declaration))


def declaration_of_method(method: Callable[..., Any]) -> Declaration:
    """Return the parameters that a method declares.

    Raises:
        ApiError: The method cannot declare an event.
    """
    signature = _signature_of(method)
    if not signature or signature[0].name != "self":
        raise ApiError(
            f"{method.__qualname__} cannot declare an event: its first parameter must be self."
        )
    return _declaration_of_signature(method.__qualname__, signature[1:], _hints_of_method(method))


def declaration_of_class(class_: Any) -> Declaration:
    """Return the parameters that a class, or a generic form of one, declares.

    Raises:
        ApiError: The class cannot declare an event.
    """
    if pydantic_fields.has_fields(class_):
        return _declaration_of_pydantic_class(class_)
    name = _name_of(class_)
    if typing.is_typeddict(get_origin(class_) or class_):
        raise ApiError(
            f"{name} cannot declare an event: it is a TypedDict. Use a dataclass, or another class "
            f"whose fields are attributes."
        )
    signature = _signature_of(class_)
    attributes = _attributes_of(get_origin(class_) or class_)
    if attributes is not None:
        _check_attributes(name, signature, attributes)
    declaration = _declaration_of_signature(
        name, signature, _hints_of_class(class_, attributes or {})
    )
    attribute_names = {
        item.name: (attributes or {}).get(item.name, item.name)
        for item in declaration.items
        if isinstance(item, Parameter)
    }

    def values(arguments: Mapping[str, Any]) -> dict[str, Any]:
        instance = class_(**arguments)
        return {name: getattr(instance, attribute) for name, attribute in attribute_names.items()}

    return attrs.evolve(declaration, values=values)


def _check_attributes(
    name: str, signature: Iterable[inspect.Parameter], attributes: Mapping[str, str]
) -> None:
    """Check that a class stores each of its arguments in an attribute."""
    unknown = [
        p.name for p in signature if p.name not in attributes and p.kind is not p.VAR_KEYWORD
    ]
    if unknown:
        raise ApiError(
            f"{name} cannot declare an event: it requires {', '.join(map(repr, unknown))}, but "
            "has no such field."
        )


def _declaration_of_pydantic_class(class_: Any) -> Declaration:
    fields = pydantic_fields.declared_fields(class_)
    items: list[Parameter | WildcardParameter] = [
        Parameter(field.name, field.annotation)
        if field.is_required
        else Parameter(field.name, field.annotation, field.default)
        for field in fields
    ]
    if pydantic_fields.allows_extra(class_):
        items.append(WildcardParameter())
    keys = {field.name: field.key for field in fields}

    def values(arguments: Mapping[str, Any]) -> dict[str, Any]:
        instance = class_(**{keys.get(name, name): value for name, value in arguments.items()})
        by_name = {field.name: getattr(instance, field.attribute) for field in fields}
        return {**pydantic_fields.extras_of(instance), **by_name}

    is_positional = dataclasses.is_dataclass(class_)
    positional = [field.name for field in fields if is_positional and not field.is_keyword_only]
    return Declaration(tuple(items), tuple(positional), values)


def _declaration_of_signature(
    name: str, signature: Iterable[inspect.Parameter], hints: Mapping[str, Any]
) -> Declaration:
    return Declaration(
        tuple(_parameters_of(name, signature, hints)),
        tuple(p.name for p in signature if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


def _parameters_of(
    name: str, signature: Iterable[inspect.Parameter], hints: Mapping[str, Any]
) -> Iterator[Parameter | WildcardParameter]:
    for parameter in signature:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise ApiError(
                f"{name} cannot declare an event: its parameter {parameter.name!r} cannot be "
                "passed by name."
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            yield WildcardParameter()
        else:
            default = {} if parameter.default is parameter.empty else {"default": parameter.default}
            yield Parameter(parameter.name, hints.get(parameter.name, Any), **default)


def _signature_of(declaration: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(get_origin(declaration) or declaration).parameters.values())
    except (NameError, TypeError, ValueError) as error:
        raise ApiError(f"{declaration!r} cannot declare an event: {error}.") from error


def _hints_of_method(method: Callable[..., Any]) -> dict[str, Any]:
    with _report_invalid_hints(method.__qualname__):
        return typing.get_type_hints(method, include_extras=True)


def _hints_of_class(class_: Any, attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return the type hints of the arguments of a class, by name."""
    with _report_invalid_hints(_name_of(class_)):
        of_class = hints_of(class_)
        of_init = typing.get_type_hints(
            (get_origin(class_) or class_).__init__, include_extras=True
        )
        of_fields = {
            name: of_class[attribute]
            for name, attribute in attributes.items()
            if attribute in of_class
        }
        return {**of_init, **of_class, **of_fields}


@contextlib.contextmanager
def _report_invalid_hints(name: str) -> Iterator[None]:
    try:
        yield
    except NameError as error:
        raise ApiError(
            f"{name} cannot declare an event: {error}. Its type hints are evaluated at run time, "
            "so import their names outside of `if TYPE_CHECKING:`."
        ) from error
    except Exception as error:
        raise ApiError(
            f"{name} cannot declare an event: its type hints are not valid: {error}."
        ) from error


def _attributes_of(class_: type[Any]) -> dict[str, str] | None:
    """Return the attributes for the arguments of a class, by argument; None if unknown."""
    if dataclasses.is_dataclass(class_):
        return {field.name: field.name for field in dataclasses.fields(class_) if field.init}
    if attrs.has(class_):
        return {
            field.alias or field.name: field.name for field in attrs.fields(class_) if field.init
        }
    if issubclass(class_, msgspec.Struct) or hasattr(class_, "_fields"):  # a named tuple
        names = getattr(class_, "__struct_fields__", getattr(class_, "_fields", ()))
        return {name: name for name in names}
    return None


def _name_of(class_: Any) -> str:
    return class_.__qualname__ if isinstance(class_, type) else str(class_)
