"""`Event`, `event` and `Parameter`: what can be fired, and what it carries."""

from __future__ import annotations

import enum
import inspect
import keyword
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    overload,
)

import attrs
import msgspec

from lightbus.codec import FieldsDecoder
from lightbus.exceptions import InvalidApi, InvalidEventArguments, InvalidParameters, NotOnBus
from lightbus.listener import OnError
from lightbus.message import EventMessage
from lightbus.values import field_names_of, fields_of, optional, told

P = ParamSpec("P")
This = TypeVar("This")


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

    Raises:
        InvalidApi: `name` is no identifier, or a keyword of Python.
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

    @property
    def type(self) -> Any:
        """The type of the value, which is also that of the default."""
        return optional(self.annotation) if self.default is None else self.annotation


@attrs.frozen
class WildcardParameter:
    """Stands among an event's parameters and admits any further ones."""


class EventOnBus(Protocol[P]):
    """An event of an API on a bus, as ``bus[AuthApi].user_created``.

    It is the same as ``bus.auth.user_created``, and there type checkers know its parameters. Its
    methods do, and raise, what those of a `BusPath` do.
    """

    def fire(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire`."""
        ...

    async def fire_async(self, *args: P.args, **kwargs: P.kwargs) -> EventMessage:
        """Fire the event; see `BusPath.fire_async`."""
        ...

    @overload
    def listen(
        self,
        listener: Callable[P, object],
        *,
        listener_name: str | None = None,
        on_error: OnError = OnError.SHUTDOWN,
        concurrency: int = 1,
    ) -> None: ...

    @overload
    def listen(
        self,
        listener: Callable[Concatenate[EventMessage, P], object],
        *,
        listener_name: str | None = None,
        on_error: OnError = OnError.SHUTDOWN,
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
        self._class: type[Any] | None = parameters if isinstance(parameters, type) else None
        self._method = method
        self._listed: list[Any] = []
        if self._signed is None:
            self._listed = [parameters] if isinstance(parameters, str) else list(parameters)
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
        signed = self._signed
        text = inspect.cleandoc((signed and signed.__doc__) or "")
        # Dataclasses and named tuples without a docstring make one of their signature.
        return "" if signed is None or text.startswith(f"{signed.__name__}(") else text

    @cached_property
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

    @cached_property
    def admits_any(self) -> bool:
        """Whether it may carry more than its parameters.

        Raises:
            InvalidApi: It is declared wrongly, as `check` finds.
        """
        return any(isinstance(item, WildcardParameter) for item in self._items)

    @cached_property
    def decoder(self) -> FieldsDecoder | None:
        """What decodes its values to the types that it is declared with; None where it has none.

        Raises:
            InvalidApi: It is declared wrongly, as `check` finds.
        """
        types = {p.name: p.type for p in self.parameters.values() if p.type is not Any}
        return FieldsDecoder(types, has_others=False) if types else None

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
        names = self._positional
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
        if self._class is not None:
            return self._made_of(self._class, canonical_name, given)
        return arguments

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
            raise InvalidEventArguments(canonical_name, reason=told(error)) from error.__cause__
        except Exception as error:  # a user's class may raise any
            raise InvalidEventArguments(canonical_name, reason=told(error)) from error

    def _made_of(
        self, class_: type[Any], canonical_name: str, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            return fields_of(class_(**given), self.parameters)
        except Exception as error:
            reason = f"{class_.__name__} does not take them: {told(error)}"
            raise InvalidEventArguments(canonical_name, reason=reason) from error

    @property
    def _signed(self) -> Callable[..., Any] | None:
        """What declares it by its signature; None where it is declared by a list."""
        return self._class or self._method

    @property
    def _items(self) -> Iterable[Any]:
        if self._signed is None:
            return self._listed
        return _parameters_of(self._signed, self._signature)

    @cached_property
    def _signature(self) -> list[inspect.Parameter]:
        if self._signed is None:
            return []
        try:
            parameters = list(inspect.signature(self._signed).parameters.values())
        except (NameError, TypeError, ValueError) as error:
            raise InvalidApi(f"{self._signed!r} can not declare an event: {error}.") from error
        if self._method is None:
            return parameters
        if not parameters or parameters[0].name != "self":
            raise InvalidApi(
                f"{self._method.__qualname__} can not declare an event: its first parameter is to "
                f"be self, as of a method."
            )
        return parameters[1:]

    @cached_property
    def _positional(self) -> list[str]:
        return [p.name for p in self._signature if p.kind is p.POSITIONAL_OR_KEYWORD]

    @cached_property
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
    know what is right. A method that can not declare an event is refused by `register_api`.
    """
    return Event(method=method)


def _parameters_of(
    declaration: Callable[..., Any], signature: Iterable[inspect.Parameter]
) -> Iterator[Parameter | WildcardParameter]:
    name = declaration.__qualname__
    hints = _hints_of(declaration)
    if isinstance(declaration, type):
        known = field_names_of(declaration)
        unknown = [
            p.name
            for p in signature
            if known is not None and p.name not in known and p.kind is not p.VAR_KEYWORD
        ]
        if unknown:
            raise InvalidApi(
                f"{name} can not declare an event: it takes {', '.join(map(repr, unknown))}, and "
                f"has no such field, for others to be told of."
            )
    for parameter in signature:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise InvalidApi(
                f"{name} can not declare an event: its parameter {parameter.name!r} can not be "
                f"given by name."
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            yield WildcardParameter()
        else:
            default = {} if parameter.default is parameter.empty else {"default": parameter.default}
            yield Parameter(parameter.name, hints.get(parameter.name, Any), **default)


def _hints_of(declaration: Callable[..., Any]) -> dict[str, Any]:
    try:
        found = typing.get_type_hints(declaration, include_extras=True)
        if isinstance(declaration, type):
            made_of = typing.get_type_hints(_init_of(declaration), include_extras=True)
            names = field_names_of(declaration) or {}
            of_fields = {name: found[held] for name, held in names.items() if held in found}
            found = {**made_of, **found, **of_fields}
        return found
    except NameError as error:
        raise InvalidApi(
            f"{declaration.__qualname__} can not declare an event: {error}. Its type hints are "
            f"needed when the program runs, so import them outside of `if TYPE_CHECKING:`."
        ) from error
    except Exception as error:
        raise InvalidApi(
            f"{declaration.__qualname__} can not declare an event: its type hints are wrong: "
            f"{error}."
        ) from error


def _init_of(class_: type[Any]) -> Any:
    return class_.__init__


def _admits_none(annotation: Any) -> bool:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _admits_none(args[0])
    if origin in (Union, types.UnionType):
        return any(map(_admits_none, args))
    return annotation in (None, type(None)) or (origin is Literal and None in args)
