"""Every error that Lightbus raises, under one root.

::

    LightbusException
    ├── ApiError                     the program uses Lightbus wrongly
    │   ├── InvalidName              a name is empty, too long, or has a wrong character
    │   ├── EventNotFound            an API or an event has no such name here
    │   ├── InvalidEventListener     a handler cannot be called with its events
    │   ├── DuplicateListenerName    a service has two listeners of one name on one API
    │   └── CannotBlockHere          a blocking call on a thread that must not wait
    ├── ValidationError              the values of an event are wrong
    │   ├── InvalidEventArguments    fire() was called with wrong arguments
    │   ├── UnencodableValue         an argument cannot be encoded as JSON
    │   ├── UndecodableEvent         the body of an event is not a JSON object
    │   └── UnfitEvent               an event does not fit the type hints of a handler
    ├── ConfigError                  a bus or a worker cannot be set up
    ├── TransportError               the broker, or the connection to it, failed
    │   ├── TransportUnavailable     not reached: nothing was sent
    │   ├── TransportRefused         reached, but it refused the request
    │   │   ├── FeatureNotSupported  the transport has no such feature
    │   │   ├── NotDeclared          the broker has no queue for this listener
    │   │   └── QueueInUse           a client uses the queue, or it has events
    │   ├── TopologyMismatch         an object at the broker has other settings
    │   ├── SendRefused              the broker did not accept this event
    │   ├── SendOutcomeUnknown       the event may or may not be stored
    │   └── TransportClosed          the program closed the transport
    ├── ListenerError                a listener could not handle an event
    │   ├── UnexpectedEvent          the listener does not listen for it
    │   ├── HandlerExited            the handler tried to end the process
    │   ├── HandlerTimeout           the handler took too long
    │   └── AttemptsExhausted        all attempts ended without a result
    ├── CallbackExited               a hook or a task tried to end the process
    └── IteratorReturned             a function returned an iterator that nothing runs

An error has the data of its message, such as the name of an API, as attributes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, ClassVar

# The last @ ends a login, because a password may contain one. The first slash is optional, because
# a path can have one slash of the two. The example URL in a message of our own is not a login.
_LOGIN = re.compile(r"(?<=:/)(/?)(?!/?user:password@host)[^\n]*@")

# Two full stops that end a sentence, but not an ellipsis, and not the parent directory
_TWO_FULL_STOPS = re.compile(r"""(?<=[\w)'"\]}`])\.\.(?=\s|$)""")


def _without_login(text: str) -> str:
    # Not a template: `re` would import a module for it, which fails at interpreter exit.
    return _LOGIN.sub(lambda found: f"{found[1]}***@", text)


def _clean(text: str) -> str:
    # The quoted reason of a broker or a library may end with a full stop of its own.
    return _TWO_FULL_STOPS.sub(lambda _: ".", _without_login(text))


class LightbusException(Exception):
    """The root of every error that Lightbus raises.

    Messages show ``***`` instead of the user and the password in a URL.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_clean(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling must not call `__init__`, whose arguments are not `self.args`.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    class_: type[LightbusException], args: tuple[object, ...], state: dict[str, Any]
) -> LightbusException:
    error = class_.__new__(class_, *args)
    error.__dict__.update(state)
    return error


class ApiError(LightbusException):
    """The program uses Lightbus wrongly: what it declares, names or calls cannot work."""


class InvalidName(ApiError):
    """A name is empty or too long, or has a character or a placeholder that is not allowed.

    Attributes:
        kind: What has the name, for example ``"listener"``.
        name: The invalid name.
    """

    def __init__(self, kind: str, name: object, reason: str) -> None:
        super().__init__(f"Invalid {kind} name {name!r}: {reason}.")
        self.kind = kind
        self.name = _without_login(name) if isinstance(name, str) else name


class EventNotFound(ApiError, AttributeError):
    """An API is not registered on the bus, or has no event of this name.

    Attributes:
        api_name: The name of the API.
        event_name: The name of the event; empty if the API is not registered.
    """

    def __init__(self, message: str, *, api_name: str, event_name: str = "") -> None:
        super().__init__(message)
        self.api_name = api_name
        self.event_name = event_name


class InvalidEventListener(ApiError):
    """A handler cannot be called with the events it listens for, or its options are wrong."""


class DuplicateListenerName(ApiError):
    """A service has two listeners of the same name on the same API.

    Attributes:
        listener_name: The name of both listeners.
        api_name: The name of the API.
    """

    def __init__(self, listener_name: str, api_name: str) -> None:
        super().__init__(
            f"This service already has a listener named {listener_name!r} on API {api_name!r}. "
            "Listeners of the same name share one queue. Give this one another listener_name."
        )
        self.listener_name = listener_name
        self.api_name = api_name


class CannotBlockHere(ApiError):
    """A blocking call was made on a thread that must not wait.

    Attributes:
        call: The call, for example ``"fire()"``.
    """

    def __init__(self, call: str, problem: str) -> None:
        super().__init__(f"{call} {problem}")
        self.call = call


class ValidationError(LightbusException):
    """The values of an event are wrong."""


class InvalidEventArguments(ValidationError):
    """An event was fired with missing or unexpected arguments, or with wrong values.

    Attributes:
        event: The canonical name of the event, for example ``"auth.user_created"``.
        missing: The names of required arguments that were not given.
        unexpected: The names of given arguments that the event does not have.
        reason: What else is wrong; empty if nothing is.
    """

    def __init__(
        self,
        event: str,
        *,
        missing: Collection[str] = (),
        unexpected: Collection[str] = (),
        reason: str = "",
    ) -> None:
        reasons = [reason] if reason else []
        for problem, names in (("missing", missing), ("unexpected", unexpected)):
            if names:
                reasons.append(f"{problem} {', '.join(map(repr, names))}")
        super().__init__(f"Event {event} was fired with wrong arguments: {'; '.join(reasons)}.")
        self.event = event
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.reason = reason


class UnencodableValue(ValidationError):
    """An argument of an event cannot be encoded as JSON, or would lose data.

    Attributes:
        argument: The name of the argument; ``"(all)"`` if it is not known which one it is.
        value_type: The type of the argument.
        path: The path of the value in the arguments, for example ``"$.order.tags[0]"``.
    """

    def __init__(self, argument: str, value: object, reason: str, path: str) -> None:
        value_type = type(value)
        super().__init__(
            f"Argument {argument!r} of type {value_type.__qualname__} cannot be encoded as JSON: "
            f"{reason} - at `{path}`."
        )
        self.argument = argument
        self.value_type = value_type
        self.path = path


class UndecodableEvent(ValidationError):
    """The body of an event is not a JSON object (RFC 8259, section 4)."""


class UnfitEvent(ValidationError):
    """A value of an event is not of the type in the handler's type hint.

    Attributes:
        handler: The name of the handler.
        event: The canonical name of the event.
        reason: What does not fit, for example ``"Expected `int`, got `str` - at `$.age`"``.
    """

    def __init__(self, handler: str, event: str, reason: str) -> None:
        super().__init__(
            f"Event {event} does not fit the type hints of {handler}(): {reason}. Correct the "
            "parameters of the event, or the handler, and replay it: `lightbus dead-letters`."
        )
        self.handler = handler
        self.event = event
        self.reason = reason


class ConfigError(LightbusException):
    """A bus or a worker cannot be set up: a setting or a file is wrong, a package is not installed,
    the bus module cannot be imported, or the health port cannot be used.

    Attributes:
        source: The file that is wrong, or another name for where a setting came from; empty if the
            error is not about a setting or a file.
        path: Where in the source, for example ``"$.apis.default"``; empty for the whole of it.
    """

    def __init__(self, problem: str, *, source: str = "", path: str = "") -> None:
        super().__init__(": ".join(part for part in (source, path, problem) if part))
        self.source = source
        self.path = _without_login(path)


class TransportError(LightbusException):
    """The broker, or the connection to it, failed."""


class TransportUnavailable(TransportError):
    """The broker was not reached in time, or the connection was lost; nothing was sent."""


class TransportRefused(TransportError):
    """The broker was reached, but refused the request: for example credentials or permissions are
    wrong, a virtual host is missing, or a queue is in use.
    """


class FeatureNotSupported(TransportRefused):
    """A transport does not support an optional feature.

    Attributes:
        transport: The name of the transport's class.
        feature: The name of the feature.
        needed_by: What needs it, such as "lightbus tail".
    """

    def __init__(self, transport: str, feature: str, needed_by: str) -> None:
        super().__init__(
            f"{needed_by} needs {feature}, which {transport} does not support. Configure another "
            "transport."
        )
        self.transport = transport
        self.feature = feature
        self.needed_by = needed_by


class NotDeclared(TransportRefused):
    """The broker has no queue for a listener, because the listener never ran."""


class QueueInUse(TransportRefused):
    """A queue cannot be removed, or read completely, because a client uses it or it has events.

    Attributes:
        owner: Whose queue it is, for example ``"listener 'mail' on auth"``.
        reason: Who uses it, and the remedy.
        events: How many events would be lost; 0 if this is not the reason.
    """

    def __init__(self, owner: str, reason: str = "", *, events: int = 0) -> None:
        reason = reason or (
            f"it has {events:,} events. Have a worker handle them, or discard them with --discard"
        )
        super().__init__(f"The queue of {owner} is in use: {reason}.")
        self.owner = owner
        self.reason = reason
        self.events = events


class TopologyMismatch(TransportError):
    """An object at the broker has other settings than the declared ones.

    Attributes:
        argument: The first setting that differs, in the terms of the broker; empty if the broker
            does not report it.
        declared: Its declared value.
        actual: Its value at the broker.
    """

    def __init__(
        self, message: str, *, argument: str = "", declared: str = "", actual: str = ""
    ) -> None:
        super().__init__(message)
        self.argument = argument
        self.declared = declared
        self.actual = actual


class SendRefused(TransportError):
    """The broker did not accept an event, or the event requires listeners and has none.

    Attributes:
        event_id: The id of the event.
    """

    def __init__(self, event_id: str, reason: str) -> None:
        super().__init__(f"The broker did not accept event {event_id}: {reason}.")
        self.event_id = event_id


class SendOutcomeUnknown(TransportError):
    """The broker did not confirm an event in time, so the event may or may not be stored.

    Firing it again may store it twice, and not firing it again may lose it.

    Attributes:
        event_id: The id of the event.
        timeout: How long `fire` waited for the confirmation, in seconds.
    """

    def __init__(self, event_id: str, timeout: float) -> None:
        super().__init__(
            f"The broker did not confirm event {event_id} within {timeout:.3g} s. The outcome is "
            "unknown: the event may or may not be stored."
        )
        self.event_id = event_id
        self.timeout = timeout


class TransportClosed(TransportError):
    """The transport was closed before or during its use."""


class ListenerError(LightbusException):
    """A listener could not handle an event.

    Attributes:
        listener: The name of the listener.
    """

    def __init__(self, listener: str, problem: str) -> None:
        super().__init__(f"Listener {listener!r} {problem}")
        self.listener = listener


class UnexpectedEvent(ListenerError):
    """A listener received an event that it does not listen for.

    Attributes:
        event: The canonical name of the event.
    """

    # Dead letters store this name, and filters match it, so a new name of the class keeps it.
    stored_name: ClassVar = "lightbus.exceptions.NotListenedFor"

    def __init__(self, listener: str, event: str) -> None:
        super().__init__(
            listener,
            f"does not listen for {event}; another version of the service may. Replay it when such "
            "a version runs, or discard it: `lightbus dead-letters`. To stop its delivery, run "
            "`lightbus topology --migrate`.",
        )
        self.event = event


class HandlerExited(ListenerError):
    """A handler tried to end the process, or cancelled its own task."""

    def __init__(self, listener: str, raised: BaseException) -> None:
        super().__init__(listener, f"raised {type(raised).__name__}: {raised}")


class HandlerTimeout(ListenerError):
    """A handler did not finish within its `acknowledgement_timeout`.

    Attributes:
        timeout: The `acknowledgement_timeout`, in seconds.
        is_stuck: Whether the handler ran for another `acknowledgement_timeout` after that, so that
            the worker exits.
    """

    def __init__(self, listener: str, timeout: float, *, is_stuck: bool = False) -> None:
        super().__init__(
            listener,
            f"is still running {timeout:g} s after it timed out, and cannot be stopped. The worker "
            "exits, so that its supervisor starts a new one."
            if is_stuck
            else f"did not finish within its acknowledgement_timeout of {timeout:g} s.",
        )
        self.timeout = timeout
        self.is_stuck = is_stuck


class AttemptsExhausted(ListenerError):
    """All attempts of an event were used, and the last one ended without a result, for example
    because the worker was killed.

    Attributes:
        max_attempts: How many attempts the listener allows.
    """

    def __init__(self, listener: str, max_attempts: int) -> None:
        super().__init__(
            listener,
            f"used all of its {max_attempts} attempts. The last one ended without a result, for "
            "example because the worker was killed.",
        )
        self.max_attempts = max_attempts


class CallbackExited(LightbusException):
    """A hook or a task tried to end the process, or cancelled itself.

    Attributes:
        callback: The name of the hook or the task.
    """

    # As in `UnexpectedEvent`. Only hooks can cause a dead letter, tasks cannot.
    stored_name: ClassVar = "lightbus.exceptions.HookExited"

    def __init__(self, kind: str, callback: str, raised: BaseException) -> None:
        super().__init__(f"{kind} {callback!r} raised {type(raised).__name__}: {raised}")
        self.callback = callback


class IteratorReturned(LightbusException):
    """A handler, a hook, a middleware or a task returned an iterator, such as a generator, so its
    code did not run.

    Attributes:
        function: The name of the function.
        returned: The type of the iterator.
    """

    def __init__(self, function: str, result: object) -> None:
        returned = type(result)
        super().__init__(
            f"{function}() returned an iterator ({returned.__qualname__}), whose code does not "
            "run. Iterate over it in the function."
        )
        self.function = function
        self.returned = returned
