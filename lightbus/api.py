"""`Api`, `Event` and `Parameter`: what can be fired."""

from __future__ import annotations

import enum
import keyword
import types
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Union, get_args, get_origin

import attrs

from lightbus.exceptions import EventNotFound, InvalidApi, InvalidEventArguments, did_you_mean
from lightbus.names import checked_name

_META_OPTIONS = ("name", "version", "internal")


class _Required(enum.Enum):
    """Stands in a parameter's default where there is none, for None is a default like any other."""

    REQUIRED = "required"


@attrs.frozen
class Parameter:
    """One named value of an event.

    Attributes:
        name: A Python identifier; the key in the event's JSON body.
        annotation: The type of the value.
        default: What is sent where `fire` is not given the value. A parameter whose annotation
            admits ``None`` has the default ``None``.
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
            raise InvalidApi(f"{self.name!r} can not name a parameter: it is not an identifier.")
        if self.default is _Required.REQUIRED and _admits_none(self.annotation):
            object.__setattr__(self, "default", None)

    @property
    def is_required(self) -> bool:
        """Whether `fire` must be given this value."""
        return self.default is _Required.REQUIRED


@attrs.frozen
class WildcardParameter:
    """Stands among an event's parameters and admits any further ones."""


class Event:
    """An event of an `Api`, declared as a class attribute.

    Args:
        parameters: Names, `Parameter` objects or `WildcardParameter`. A plain string is one name.

    Raises:
        InvalidApi: A parameter is none of these, or two have the same name.
    """

    def __init__(
        self, parameters: str | Iterable[str | Parameter | WildcardParameter] = ()
    ) -> None:
        given = [parameters] if isinstance(parameters, str) else list(parameters)
        self.admits_any = any(isinstance(item, WildcardParameter) for item in given)
        self.parameters: dict[str, Parameter] = {}
        for item in given:
            if not isinstance(item, WildcardParameter):
                self._add(item)
        self._defaults = {p.name: p.default for p in self.parameters.values() if not p.is_required}
        self.name = ""

    def _add(self, item: str | Parameter) -> None:
        if not isinstance(item, str | Parameter):
            raise InvalidApi(f"{item!r} is not an event's parameter: give a name or a Parameter.")
        parameter = Parameter(item) if isinstance(item, str) else item
        if parameter.name in self.parameters:
            raise InvalidApi(f"An event has two parameters named {parameter.name!r}.")
        self.parameters[parameter.name] = parameter

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        names = [*self.parameters, *(["*"] if self.admits_any else [])]
        return f"<Event {self.name}({', '.join(names)})>"

    def arguments(self, canonical_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an event fired with `given` carries: these, and defaults for the rest.

        Raises:
            InvalidEventArguments: Some are missing, or some do not belong to the event.
        """
        if given.keys() == self.parameters.keys():
            return dict(given)
        arguments = {**self._defaults, **given}
        missing = [name for name in self.parameters if name not in arguments]
        unexpected = (
            [] if self.admits_any else [name for name in given if name not in self.parameters]
        )
        if missing or unexpected:
            raise InvalidEventArguments(canonical_name, missing=missing, unexpected=unexpected)
        return arguments


@attrs.frozen
class ApiMeta:
    """What an API's inner class ``Meta`` says.

    Attributes:
        name: The API's name; dots nest it (``bus.help_desk.ticket`` for ``"help_desk.ticket"``).
        version: Travels with every event.
        internal: Whether the API belongs to the bus itself.
    """

    name: str
    version: int = 1
    internal: bool = False


class Api:
    """Derive from this class to declare events, and register the class with `register_api`.

    ::

        class AuthApi(Api):
            user_created = Event(parameters=("username", "email"))

            class Meta:
                name = "auth"

    Raises:
        InvalidApi: On definition, where ``Meta`` or its ``name`` is missing or wrong.
        InvalidName: On definition, where the name can not be an API's.
    """

    meta: ClassVar[ApiMeta]
    events: ClassVar[Mapping[str, Event]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.meta = _read_meta(cls)
        cls.events = {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Event)
        }

    @classmethod
    def event(cls, name: str) -> Event:
        """Return the event called `name`.

        Raises:
            EventNotFound: There is none.
        """
        try:
            return cls.events[name]
        except KeyError:
            raise EventNotFound(cls.meta.name, name, cls.events) from None


def _read_meta(cls: type[Api]) -> ApiMeta:
    meta = vars(cls).get("Meta")
    options = {k: v for k, v in vars(meta).items() if not k.startswith("__")} if meta else {}
    for option in options:
        if option not in _META_OPTIONS:
            raise InvalidApi(
                f"{cls.__name__}.Meta.{option} is not an option of an API."
                f"{did_you_mean(option, _META_OPTIONS)}"
            )
    if "name" not in options:
        raise InvalidApi(
            f"{cls.__name__} has no name. Give it one: an inner `class Meta:` with `name = ...`."
        )
    if options["name"] == "default":
        raise InvalidApi(
            f"{cls.__name__} can not be named 'default': in the configuration that stands for "
            f"every API that is not named."
        )
    checked_name("API", options["name"])
    return ApiMeta(**options)


def _admits_none(annotation: Any) -> bool:
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return annotation is None or (is_union and type(None) in get_args(annotation))
