"""`Event` and `event`: declare the events of an API."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    get_origin,
    overload,
)

import msgspec

from lightbus.concurrency.lazy import lazy_property
from lightbus.declarations import (
    Declaration,
    Parameter,
    WildcardParameter,
    declaration_of_class,
    declaration_of_method,
    is_class,
)
from lightbus.encoding.custom_types import describe_error
from lightbus.encoding.json_codec import FieldsDecoder
from lightbus.exceptions import ApiError, EventNotFound, InvalidEventArguments
from lightbus.message import EventMessage
from lightbus.policy import OnError

P = ParamSpec("P")
This = TypeVar("This")


class EventOnBus(Protocol[P]):
    """An event of an API on a bus, for example ``bus[AuthApi].user_created``.

    It is the same as ``bus.auth.user_created``, but type checkers know its parameters. Its methods
    are those of a `BusPath`.
    """

    def fire(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire`. If interrupted, the event may still be stored."""
        ...

    async def fire_async(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire_async`. If cancelled, the event may still be stored."""
        ...

    @overload
    def listen(
        self,
        listener: Callable[P, object],
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None: ...

    @overload
    def listen(
        self,
        listener: Callable[Concatenate[EventMessage, P], object],
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None: ...


class Event(Generic[P]):
    """An event of an `Api`, declared as a class attribute.

    Args:
        parameters: Names, `Parameter` objects or `WildcardParameter`; a plain string is one name.
            Or a class, such as a dataclass, whose fields are the parameters. Firing the event
            creates an object of the class, which may refuse or convert the values.
        method: The method that the decorator `event` decorates.

    Attributes:
        name: The name of the event; empty until its API class is defined.

    Raises:
        ApiError: A parameter has another type, or two parameters have the same name.
        EventNotFound: The event is accessed on an instance of an API that belongs to no bus.
    """

    @overload
    def __init__(
        self: Event[...], parameters: str | Iterable[str | Parameter | WildcardParameter] = ()
    ) -> None: ...

    @overload
    def __init__(self, parameters: Callable[P, object]) -> None: ...

    @overload
    def __init__(self, *, method: Callable[Concatenate[This, P], object]) -> None: ...

    def __init__(self, parameters: Any = (), *, method: Callable[..., Any] | None = None) -> None:
        self.name = ""
        self._class: Any = parameters if is_class(parameters) else None
        self._method = method
        self._listed: list[Any] = []
        if self._class is None and method is None:
            self._listed = _listed(parameters)
            self.check()

    @overload
    def __get__(self, instance: None, owner: type) -> Event[P]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> EventOnBus[P]: ...

    def __get__(self, instance: object, owner: type) -> Event[P] | EventOnBus[P]:
        if instance is None:
            return self
        path = vars(instance).get("_path")
        if path is None:
            raise EventNotFound(
                f"This {owner.__name__} does not belong to a bus. Use bus[{owner.__name__}]."
                f"{self.name}.",
                api_name=cast("Any", owner).meta.name,
                event_name=self.name,
            )
        return cast("EventOnBus[P]", getattr(path, self.name))

    def __set_name__(self, owner: type, name: str) -> None:
        # The first name stays. `Api` refuses an event that has two names.
        self.name = self.name or name

    def __repr__(self) -> str:
        names = [*self.parameters, *(["*"] if self.allows_extra else [])]
        return f"<Event {self.name}({', '.join(names)})>"

    @property
    def description(self) -> str:
        """The docstring of the class or method that declares the event; empty if there is none."""
        source = get_origin(self._class) or self._class or self._method
        text = inspect.cleandoc((source and source.__doc__) or "")
        # Dataclasses and named tuples without a docstring generate one from their signature.
        return "" if source is None or text.startswith(f"{source.__name__}(") else text

    @lazy_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters of the event, by name.

        Raises:
            ApiError: The declaration is not valid; see `check`.
        """
        parameters: dict[str, Parameter] = {}
        for item in self._items:
            if isinstance(item, WildcardParameter):
                continue
            if not isinstance(item, str | Parameter):
                raise ApiError(
                    f"{item!r} is not a parameter of an event. Pass a name or a Parameter."
                )
            parameter = Parameter(item) if isinstance(item, str) else item
            if parameter.name in parameters:
                raise ApiError(f"An event has two parameters named {parameter.name!r}.")
            parameters[parameter.name] = parameter
        return parameters

    @lazy_property
    def allows_extra(self) -> bool:
        """Whether the event accepts other fields than its parameters.

        Raises:
            ApiError: The declaration is not valid; see `check`.
        """
        return any(isinstance(item, WildcardParameter) for item in self._items)

    @lazy_property
    def decoder(self) -> FieldsDecoder | None:
        """The decoder for the declared types; None if no parameter declares a type.

        Raises:
            ApiError: The declaration is not valid; see `check`.
        """
        types = {p.name: p.type for p in self.parameters.values() if p.type is not Any}
        return FieldsDecoder(types, keeps_others=False) if types else None

    def check(self) -> None:
        """Check the declaration.

        `register_api` calls this. A declaration by a class or a method is checked only then,
        because its type hints may refer to names that its module defines later.

        Raises:
            ApiError: The declaration is not valid.
        """
        _ = self.parameters, self.allows_extra

    def with_names(
        self, canonical_name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the positional arguments `args` and the keyword arguments `kwargs`, by name.

        Raises:
            InvalidEventArguments: The event does not accept so many positional arguments, or
                `kwargs` repeats one of them.
        """
        names = () if self._declaration is None else self._declaration.positional
        if len(args) > len(names):
            reason = (
                f"{len(args)} positional, but at most {len(names)} expected; pass each by name: "
                "fire(name=value)"
            )
            raise InvalidEventArguments(canonical_name, reason=reason)
        named = dict(zip(names, args, strict=False))
        if repeated := named.keys() & kwargs.keys():
            reason = f"two values for {', '.join(sorted(repeated))}"
            raise InvalidEventArguments(canonical_name, reason=reason)
        return {**named, **kwargs}

    def arguments(self, canonical_name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of an event that is fired with `kwargs`, including defaults.

        Raises:
            InvalidEventArguments: An argument is missing or unexpected, or the class that declares
                the event refuses the values.
        """
        if kwargs.keys() == self.parameters.keys() and self._class is None:
            return dict(kwargs)
        arguments = {**self._defaults, **kwargs}
        missing = [name for name in self.parameters if name not in arguments]
        unexpected = (
            [] if self.allows_extra else [name for name in kwargs if name not in self.parameters]
        )
        if missing or unexpected:
            raise InvalidEventArguments(canonical_name, missing=missing, unexpected=unexpected)
        if self._declaration is None or self._declaration.values is None:
            return arguments
        try:
            return self._declaration.values(kwargs)
        except Exception as error:  # a user's class may raise any exception
            reason = f"{self._class.__name__} does not accept them: {describe_error(error)}"
            raise InvalidEventArguments(canonical_name, reason=reason) from error

    def check_values(self, canonical_name: str, body: bytes) -> None:
        """Check that the values in `body` have the types that the event declares.

        Raises:
            InvalidEventArguments: A value has another type. The error states its path.
        """
        try:
            if self.decoder is not None:
                self.decoder.decode(body)
        except msgspec.ValidationError as error:
            # The original message may quote the value, which the traceback would then show.
            raise InvalidEventArguments(
                canonical_name, reason=describe_error(error)
            ) from error.__cause__
        except Exception as error:  # a user's class may raise any exception
            raise InvalidEventArguments(canonical_name, reason=describe_error(error)) from error

    @lazy_property
    def _declaration(self) -> Declaration | None:
        """The declaration by a class or a method; None for a declaration by a list."""
        if self._class is not None:
            return declaration_of_class(self._class)
        return declaration_of_method(self._method) if self._method is not None else None

    @property
    def _items(self) -> Iterable[Any]:
        return self._listed if self._declaration is None else self._declaration.items

    @lazy_property
    def _defaults(self) -> dict[str, Any]:
        return {p.name: p.default for p in self.parameters.values() if not p.is_required}


def event(method: Callable[Concatenate[This, P], object]) -> Event[P]:
    """Declare an event by a method with the same parameters.

    ::

        class AuthApi(Api):
            @event
            def user_created(self, *, username: str, email: str) -> None:
                \"\"\"A user has signed up.\"\"\"

    The method itself is never called. Type checkers check the arguments of
    ``bus[AuthApi].user_created.fire(...)``. `register_api` refuses a method that cannot declare an
    event.
    """
    return Event(method=method)


def _listed(parameters: Any) -> list[Any]:
    if isinstance(parameters, str):
        return [parameters]
    try:
        return list(parameters)
    except TypeError as error:
        raise ApiError(
            f"{parameters!r} cannot declare an event. Pass names, Parameter objects or a class."
        ) from error
