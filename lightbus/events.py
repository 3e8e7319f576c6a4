"""`Event` and `event`: what can be fired."""

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
    declared_by_class,
    declared_by_method,
    is_class,
)
from lightbus.encoding.custom_types import describe_error
from lightbus.encoding.json_codec import FieldsDecoder
from lightbus.exceptions import InvalidApi, InvalidEventArguments, InvalidParameters, NotOnBus
from lightbus.message import EventMessage
from lightbus.policy import OnError

P = ParamSpec("P")
This = TypeVar("This")


class EventOnBus(Protocol[P]):
    """An event of an API on a bus, as ``bus[AuthApi].user_created``.

    It is the same as ``bus.auth.user_created``, and there type checkers know its parameters. Its
    methods do, and raise, what those of a `BusPath` do.
    """

    def fire(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire`. Interrupted, the event may be stored."""
        ...

    async def fire_async(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire_async`. Cancelled, the event may be stored."""
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
            Or a class whose fields they are, such as a dataclass: it is made of what is fired, and
            so it has its say about the values.
        method: What the decorator `event` was given.

    Attributes:
        name: The attribute that it is; empty until its class is defined.

    Raises:
        InvalidApi: A parameter is none of these, or two have the same name.
        NotOnBus: On access at an instance of an API that belongs to no bus.
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
            raise NotOnBus(owner.__name__, self.name)
        return cast("EventOnBus[P]", getattr(path, self.name))

    def __set_name__(self, owner: type, name: str) -> None:
        # The first one stays; `Api` refuses an event that is met under another.
        self.name = self.name or name

    def __repr__(self) -> str:
        names = [*self.parameters, *(["*"] if self.admits_any else [])]
        return f"<Event {self.name}({', '.join(names)})>"

    @property
    def description(self) -> str:
        """The docstring of what declares it; empty where there is none."""
        signed = get_origin(self._class) or self._class or self._method
        text = inspect.cleandoc((signed and signed.__doc__) or "")
        # Dataclasses and named tuples without a docstring make one of their signature.
        return "" if signed is None or text.startswith(f"{signed.__name__}(") else text

    @lazy_property
    def parameters(self) -> dict[str, Parameter]:
        """What it carries, by name.

        Raises:
            InvalidApi: It is declared wrongly, as `check` finds.
        """
        found: dict[str, Parameter] = {}
        for item in self._items:
            if isinstance(item, WildcardParameter):
                continue
            if not isinstance(item, str | Parameter):
                raise InvalidApi(
                    f"{item!r} is not an event's parameter: give a name or a Parameter."
                )
            parameter = Parameter(item) if isinstance(item, str) else item
            if parameter.name in found:
                raise InvalidApi(f"An event has two parameters named {parameter.name!r}.")
            found[parameter.name] = parameter
        return found

    @lazy_property
    def admits_any(self) -> bool:
        """Whether it may carry more than its parameters.

        Raises:
            InvalidApi: It is declared wrongly, as `check` finds.
        """
        return any(isinstance(item, WildcardParameter) for item in self._items)

    @lazy_property
    def decoder(self) -> FieldsDecoder | None:
        """What decodes its values to the types that it is declared with; None where it has none.

        Raises:
            InvalidApi: It is declared wrongly, as `check` finds.
        """
        types = {p.name: p.type for p in self.parameters.values() if p.type is not Any}
        return FieldsDecoder(types, keeps_others=False) if types else None

    def check(self) -> None:
        """Make sure that it is declared well.

        An event that is declared by a signature is checked only here, and so by `register_api`, for
        its type hints may name what its module defines later.

        Raises:
            InvalidApi: It is not.
        """
        _ = self.parameters, self.admits_any

    def with_names(
        self, canonical_name: str, args: tuple[Any, ...], given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments `given`, and with them `args`, which were given by position.

        Raises:
            InvalidParameters: The event is not declared to take so many of them, or one is given
                twice.
        """
        names = () if self._declaration is None else self._declaration.positional
        if len(args) > len(names):
            raise InvalidParameters(
                f"{canonical_name} was fired with {len(args)} positional argument(s)"
                f"{f', and takes {len(names)}' if names else ''}. "
                f"Give each by name: fire(name=value)."
            )
        named = dict(zip(names, args, strict=False))
        if twice := named.keys() & given.keys():
            raise InvalidParameters(
                f"{canonical_name} was fired with two values for {', '.join(sorted(twice))}."
            )
        return {**named, **given}

    def arguments(self, canonical_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an event fired with `given` carries: these, and defaults for the rest.

        Raises:
            InvalidEventArguments: Some are missing, some do not belong to the event, or the class
                that the event is declared by does not take them.
        """
        if given.keys() == self.parameters.keys() and self._class is None:
            return dict(given)
        arguments = {**self._defaults, **given}
        missing = [name for name in self.parameters if name not in arguments]
        unexpected = (
            [] if self.admits_any else [name for name in given if name not in self.parameters]
        )
        if missing or unexpected:
            raise InvalidEventArguments(canonical_name, missing=missing, unexpected=unexpected)
        if self._declaration is None or self._declaration.values is None:
            return arguments
        try:
            return self._declaration.values(given)
        except Exception as error:  # a user's class may raise any
            reason = f"{self._class.__name__} does not take them: {describe_error(error)}"
            raise InvalidEventArguments(canonical_name, reason=reason) from error

    def check_values(self, canonical_name: str, body: bytes) -> None:
        """Make sure that the values in `body` are of the types that the event is declared with.

        Raises:
            InvalidEventArguments: One is not; it says which, and where in it.
        """
        try:
            if self.decoder is not None:
                self.decoder.decode(body)
        except msgspec.ValidationError as error:
            # Its own text may quote the value, which the traceback would show.
            raise InvalidEventArguments(
                canonical_name, reason=describe_error(error)
            ) from error.__cause__
        except Exception as error:  # a user's class may raise any
            raise InvalidEventArguments(canonical_name, reason=describe_error(error)) from error

    @lazy_property
    def _declaration(self) -> Declaration | None:
        """What its signature declares; None where it is declared by a list."""
        if self._class is not None:
            return declared_by_class(self._class)
        return declared_by_method(self._method) if self._method is not None else None

    @property
    def _items(self) -> Iterable[Any]:
        return self._listed if self._declaration is None else self._declaration.items

    @lazy_property
    def _defaults(self) -> dict[str, Any]:
        return {p.name: p.default for p in self.parameters.values() if not p.is_required}


def event(method: Callable[Concatenate[This, P], object]) -> Event[P]:
    """Declare an event as a method, whose parameters are the event's.

    ::

        class AuthApi(Api):
            @event
            def user_created(self, *, username: str, email: str) -> None:
                \"\"\"Someone has an account now.\"\"\"

    The method itself is never called. With ``bus[AuthApi].user_created.fire(...)``, type checkers
    know what is right. A method that cannot declare an event is refused by `register_api`.
    """
    return Event(method=method)


def _listed(parameters: Any) -> list[Any]:
    if isinstance(parameters, str):
        return [parameters]
    try:
        return list(parameters)
    except TypeError as error:
        raise InvalidApi(
            f"{parameters!r} cannot declare an event: give names, Parameter objects or a class."
        ) from error
