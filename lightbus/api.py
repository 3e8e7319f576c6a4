"""`Api`: a named group of events. `ApiRegistry`: the APIs of a bus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import attrs

from lightbus.config import Config
from lightbus.events import Event
from lightbus.exceptions import ApiError, EventNotFound
from lightbus.log import get_logger
from lightbus.names import check_name, did_you_mean

_log = get_logger(__name__)

_META_OPTIONS = ("name", "version", "internal")

# Attributes of a bus and of its paths, which APIs and events cannot be named after
_ATTRIBUTES_OF_BUS = ("client", "schema")
_ATTRIBUTES_OF_PATH = ("fire", "fire_async", "listen")

# The largest version that every transport supports
_MAX_VERSION = 2**31 - 1


@attrs.frozen
class ApiMeta:
    """The settings in the inner class ``Meta`` of an API.

    Attributes:
        name: The name of the API. It may contain dots: ``"help_desk.ticket"`` is used as
            ``bus.help_desk.ticket``.
        version: The version of the API. It is sent with every event.
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

    Attributes:
        meta: The settings in the inner class ``Meta``.
        events: The declared and inherited events, by name.

    Raises:
        ApiError: When the class is defined: ``Meta`` or its ``name`` is missing or not valid, or
            the name of an event is already used for something else.
        InvalidName: When the class is defined: the name of the API or of an event is too long, or
            contains a character that is not allowed.
    """

    meta: ClassVar[ApiMeta]
    events: ClassVar[Mapping[str, Event[...]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = {
            name: None
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Event)
        }
        # Collected before any attribute is set, because that could replace an event of the same
        # name.
        for name in names:
            _check_name(cls, name)
        cls.meta = _read_meta(cls)
        values = {name: getattr(cls, name) for name in names}
        cls.events = {name: event for name, event in values.items() if isinstance(event, Event)}
        for name, event in cls.events.items():
            if event.name != name:
                raise ApiError(
                    f"{cls.__name__}.{name} is the same object as event {event.name!r}. Create "
                    "an Event for each name."
                )

    @classmethod
    def on_bus(cls, path: object) -> Self:
        """Return this API as a part of a bus.

        Args:
            path: The `BusPath` of the API.
        """
        api = cls.__new__(cls)
        vars(api)["_path"] = path
        return api

    @classmethod
    def event(cls, name: str) -> Event[...]:
        """Return the event `name`.

        Raises:
            EventNotFound: The API has no such event.
        """
        try:
            return cls.events[name]
        except KeyError:
            known = ", ".join(repr(event) for event in sorted(cls.events)) or "none"
            raise EventNotFound(
                f"API {cls.meta.name!r} has no event {name!r}. Its events: {known}."
                f"{did_you_mean(name, cls.events)}",
                api_name=cls.meta.name,
                event_name=name,
            ) from None


def api_class_of(api: object) -> type[Api]:
    """Return the class of `api`, which is an API class or an instance of one.

    Raises:
        ApiError: `api` is not an API.
    """
    api_class = api if isinstance(api, type) else type(api)
    if not issubclass(api_class, Api) or api_class is Api:
        raise ApiError(f"{api!r} is not an Api. Derive a class from lightbus.Api.")
    return api_class


class ApiRegistry(Mapping[str, type[Api]]):
    """The registered APIs of a bus, by name.

    Args:
        config: Says whether the values of an API's events are validated.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._by_name: dict[str, type[Api]] = {}

    def __getitem__(self, name: str) -> type[Api]:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def register(self, api: Api | type[Api]) -> None:
        """Add an API. The errors are those of `BusClient.register_api`."""
        api_class = api_class_of(api)
        for event in api_class.events.values():
            event.check()
        name = api_class.meta.name
        is_new = name not in self._by_name
        registered = self._by_name.setdefault(name, api_class)
        if registered is not api_class:
            raise ApiError(f"Another API is already registered as {name!r}: {registered!r}.")
        if is_new and self._config.api(name).validate:
            _warn_about_unsupported_hints(api_class)

    def api(self, name: str) -> type[Api]:
        """Return the API called `name`.

        Raises:
            EventNotFound: It is not registered.
        """
        try:
            return self._by_name[name]
        except KeyError:
            registered = ", ".join(repr(api) for api in sorted(self._by_name)) or "none"
            raise EventNotFound(
                f"API {name!r} is not registered on this bus, so its events cannot be fired. "
                f"Register it with bus.client.register_api(...). Registered APIs: {registered}."
                f"{did_you_mean(name, self._by_name)}",
                api_name=name,
            ) from None

    def field_names(self, api_name: str, event_name: str) -> tuple[str, ...] | None:
        """Return the fields of an event; None if the API is not registered, or if the event accepts
        any fields.

        Raises:
            EventNotFound: The API is registered and has no such event.
        """
        if api_name not in self._by_name:
            return None
        event = self._by_name[api_name].event(event_name)
        return None if event.allows_extra else tuple(event.parameters)


def _warn_about_unsupported_hints(api: type[Api]) -> None:
    for event_name, event in api.events.items():
        for part in event.decoder.unsupported if event.decoder is not None else ():
            _log.warning(
                "API: a type hint is not supported; values of this field are not validated.",
                api=api.meta.name,
                event_name=event_name,
                path=part.path,
                reason=part.reason,
            )


def _check_name(api: type[Api], name: str) -> None:
    check_name("event", name)
    if name.startswith("_"):
        raise ApiError(
            f"{api.__name__} cannot have an event named {name!r}: the name of an event must not "
            "start with an underscore."
        )
    if hasattr(Api, name) or name in {"Meta", *Api.__annotations__, *_ATTRIBUTES_OF_PATH}:
        raise ApiError(
            f"{api.__name__} cannot have an event named {name!r}: this name is reserved. Choose "
            "another name."
        )


def _read_meta(cls: type[Api]) -> ApiMeta:
    meta = vars(cls).get("Meta")
    options = {k: v for k, v in vars(meta).items() if not k.startswith("__")} if meta else {}
    for option in options:
        if option not in _META_OPTIONS:
            raise ApiError(
                f"{cls.__name__}.Meta.{option} is not an option of an API."
                f"{did_you_mean(option, _META_OPTIONS)}"
            )
    if "name" not in options:
        raise ApiError(f"{cls.__name__} has no name. Add an inner `class Meta:` with `name = ...`.")
    _check_api_name(cls, options["name"])
    version = options.get("version", 1)
    if type(version) is not int or not 0 <= version <= _MAX_VERSION:
        raise ApiError(
            f"{cls.__name__}.Meta.version is {version!r}. Use an integer from 0 to "
            f"{_MAX_VERSION:,}."
        )
    return ApiMeta(**options)


def _check_api_name(cls: type[Api], name: str) -> None:
    if name == "default":
        raise ApiError(
            f"{cls.__name__} cannot be named 'default': in the configuration, this name stands for "
            "every API without settings of its own."
        )
    check_name("API", name)
    first, *others = name.split(".")
    if first in _ATTRIBUTES_OF_BUS or any(
        not part or part.startswith("_") or part in _ATTRIBUTES_OF_PATH for part in (first, *others)
    ):
        raise ApiError(f"{cls.__name__} cannot be named {name!r}: this name is reserved.")
