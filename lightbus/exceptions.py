"""Every error that Lightbus raises, under one root.

::

    LightbusException
    ├── ApiError                    a program declares or names something wrongly
    │   ├── InvalidApi
    │   ├── InvalidName
    │   ├── UnknownApi
    │   ├── EventNotFound
    │   ├── InvalidParameters
    │   ├── NotCallable
    │   ├── NotOnBus
    │   ├── InvalidEventListener
    │   ├── InvalidHook
    │   ├── InvalidMiddleware
    │   ├── InvalidTask
    │   └── DuplicateListenerName
    ├── ValidationError             an event's values do not fit
    │   ├── InvalidEventArguments
    │   ├── UnencodableValue
    │   ├── UndecodableEvent
    │   └── UnfitEvent
    ├── CannotBlockHere
    ├── NoEventLoop
    ├── TaskExited
    ├── HookExited
    ├── IteratorReturned
    ├── NoHandlerThread
    ├── WorkerNotReusable
    ├── ConfigError                 a worker or a bus cannot be set up
    │   ├── InvalidConfig
    │   ├── TransportNotFound
    │   ├── InvalidBusModule
    │   ├── InvalidSchema
    │   ├── EventletNotSupported
    │   ├── PackageMissing
    │   └── HealthPortUnusable
    ├── TransportError              the broker, or the way to it
    │   ├── TransportUnavailable    not reached: nothing was sent
    │   ├── TransportRefused        reached, and it said no
    │   │   └── NotDeclared         it keeps nothing for the listener yet
    │   ├── TopologyMismatch        it holds an object that differs from the declared one
    │   ├── SendRefused             it did not take this event
    │   ├── SendOutcomeUnknown      it may or may not have taken this event
    │   └── TransportClosed
    ├── EventRequeued               its last attempt waits for another delivery
    └── ListenerError               an event could not be handled
        ├── UnexpectedEvent
        ├── HandlerExited
        ├── HandlerTimeout
        ├── StuckHandler
        └── AttemptsExhausted

What an error is about (an API's name, an event's id, a path in a file) is also an attribute of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to `name`, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415 - it is slow to import

    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _listing(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


# Not that of the example in our own message
# and up to the last @, for a password may hold anything. A path has one slash of the two.
_LOGIN = re.compile(r"(?<=:/)(/?)(?!/?user:password@host)[^\n]*@")


def without_login(text: str) -> str:
    """Return `text` with the user and the password of every URL in it replaced by ``***``.

    A broker's URL can stand where it does not belong, as for a key of the configuration.
    """
    # Not a template: `re` would import a module for it, which fails at interpreter exit.
    return _LOGIN.sub(lambda found: f"{found[1]}***@", text)


# Not an ellipsis, and not the folder above
_TWO_FULL_STOPS = re.compile(r"""(?<=[\w)'"\]}`])\.\.(?=\s|$)""")


def _clean(text: str) -> str:
    """Return the text of an error without a login, and with one full stop after each sentence.

    A reason that another library or a broker gives can end with a full stop of its own.
    """
    return _TWO_FULL_STOPS.sub(lambda _: ".", without_login(text))


class LightbusException(Exception):
    """The root of every error that Lightbus raises. Its text shows no password of a URL."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_clean(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled, as between processes, it is no call of `__init__`, which takes other arguments.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    class_: type[LightbusException], args: tuple[object, ...], state: dict[str, Any]
) -> LightbusException:
    error = class_.__new__(class_, *args)
    error.__dict__.update(state)
    return error


class ApiError(LightbusException):
    """A program declares, or names, an API, an event or a listener wrongly."""


class InvalidApi(ApiError):
    """An `Api`, `Event` or `Parameter` is declared in a way that cannot work."""


class InvalidName(ApiError):
    """A name is empty or too long, holds a character that names cannot have, or has an unknown
    placeholder.

    Attributes:
        kind: What is named, for example ``"listener"``.
        name: The name that was refused.
    """

    def __init__(self, kind: str, name: object, reason: str) -> None:
        super().__init__(f"Invalid {kind} name {name!r}: {reason}.")
        self.kind = kind
        self.name = without_login(name) if isinstance(name, str) else name


class UnknownApi(ApiError):
    """An event was fired on an API that is not registered in this process.

    Attributes:
        api_name: The API's name.
    """

    def __init__(self, api_name: str, known: Collection[str]) -> None:
        registered = f"Registered: {_listing(sorted(known))}." if known else "None is registered."
        super().__init__(
            f"API {api_name!r} is not registered here, so its events cannot be fired. "
            f"Register it with bus.client.register_api(...). {registered}"
            f"{did_you_mean(api_name, known)}"
        )
        self.api_name = api_name


class EventNotFound(ApiError):
    """A registered API has no event of this name.

    Attributes:
        api_name: The API's name.
        event_name: The event's name.
    """

    def __init__(self, api_name: str, event_name: str, known: Collection[str]) -> None:
        events = f"It has {_listing(sorted(known))}." if known else "It has no events."
        super().__init__(
            f"API {api_name!r} has no event {event_name!r}. {events}"
            f"{did_you_mean(event_name, known)}"
        )
        self.api_name = api_name
        self.event_name = event_name


class InvalidParameters(ApiError):
    """An event was fired with more positional arguments than it is declared to take, or with two
    values for one.
    """


class NotCallable(ApiError):
    """A bus path was called, where only ``.fire(...)``, ``.fire_async(...)`` and ``.listen(...)``
    are; or one of these was, of a path that is no event.
    """


class NotOnBus(ApiError, AttributeError):
    """An event was asked for at an instance of an `Api` that belongs to no bus.

    Attributes:
        event_name: The event's name.
    """

    def __init__(self, api_class: str, event_name: str) -> None:
        super().__init__(
            f"This {api_class} belongs to no bus. Its event is reached as "
            f"bus[{api_class}].{event_name}."
        )
        self.event_name = event_name


class InvalidEventListener(ApiError):
    """A handler cannot be called with the event that it listens for, or its options are wrong."""


class InvalidHook(ApiError):
    """A function cannot be a hook."""


class InvalidMiddleware(ApiError):
    """An object cannot be a middleware."""


class InvalidTask(ApiError):
    """A function cannot be run at the given times, or not in the background."""


class DuplicateListenerName(ApiError):
    """Two listeners of one service have the same name on the same API.

    Attributes:
        listener_name: The name that is taken.
        api_name: The API's name.
    """

    def __init__(self, listener_name: str, api_name: str) -> None:
        super().__init__(
            f"This service already has a listener named {listener_name!r} on the API "
            f"{api_name!r}. Listeners that share a name share their events; give this one "
            f"a listener_name of its own."
        )
        self.listener_name = listener_name
        self.api_name = api_name


class ValidationError(LightbusException):
    """The values of an event do not fit."""


class InvalidEventArguments(ValidationError):
    """An event was fired without all of its arguments, with others, or with wrong values.

    Attributes:
        event: The event's canonical name, for example ``"auth.user_created"``.
        missing: Names that the event requires and `fire` was not given.
        unexpected: Names that `fire` was given and the event does not have.
        reason: What is wrong with the values; empty where nothing is.
    """

    def __init__(
        self,
        event: str,
        *,
        missing: Collection[str] = (),
        unexpected: Collection[str] = (),
        reason: str = "",
    ) -> None:
        problems = [reason] if reason else []
        if missing:
            problems.append(f"missing {_listing(missing)}")
        if unexpected:
            problems.append(f"unexpected {_listing(unexpected)}")
        super().__init__(f"Event {event} was fired with wrong arguments: {'; '.join(problems)}.")
        self.event = event
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.reason = reason


class UnencodableValue(ValidationError):
    """An argument of an event cannot travel as JSON, or would lose data.

    Attributes:
        argument: The argument's name; ``"(all)"`` where it is not known which one it is.
        value_type: The type of the argument.
        place: Where in the arguments the value is, for example ``"$.order.tags[0]"``.
    """

    def __init__(self, argument: str, value: object, reason: str, place: str) -> None:
        value_type = type(value)
        super().__init__(
            f"Argument {argument!r}, a {value_type.__qualname__}, cannot travel as JSON: "
            f"{reason} - at `{place}`."
        )
        self.argument = argument
        self.value_type = value_type
        self.place = place


class UndecodableEvent(ValidationError):
    """The body of an event is not a JSON object (RFC 8259, section 4)."""


class UnfitEvent(ValidationError):
    """A value of an event is not of the type that the handler's hint for it says.

    Attributes:
        handler: The handler's name.
        event: The event's canonical name.
        reason: What was found where, for example ``"Expected `int`, got `str` - at `$.age`"``.
    """

    def __init__(self, handler: str, event: str, reason: str) -> None:
        super().__init__(
            f"Event {event} does not fit the type hints of {handler}(): {reason}. Replay it with "
            "other parameters, or with a handler that takes it: `lightbus dead-letters`."
        )
        self.handler = handler
        self.event = event
        self.reason = reason


class CannotBlockHere(LightbusException):
    """A blocking call was made on a thread that must not wait.

    Attributes:
        blocking: The call, for example ``"fire()"``.
    """

    def __init__(self, blocking: str, problem: str) -> None:
        super().__init__(f"{blocking} {problem}")
        self.blocking = blocking


class NoEventLoop(LightbusException, RuntimeError):
    """An async function of the bus was awaited where no asyncio event loop runs.

    Attributes:
        call: The function, for example ``"fire_async()"``.
    """

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call} needs a running event loop of asyncio, and this thread has none. Under "
            f"another framework, call the blocking fire() in a thread, for example with "
            f"`await trio.to_thread.run_sync(...)`, and run listeners with `lightbus run`."
        )
        self.call = call


class TaskExited(LightbusException):
    """A scheduled or background task tried to end the process, or was cancelled from within.

    Attributes:
        task: The task's name.
    """

    def __init__(self, task: str, raised: BaseException) -> None:
        super().__init__(f"Task {task!r} raised {type(raised).__name__}: {raised}")
        self.task = task


class HookExited(LightbusException):
    """A hook tried to end the process, or was cancelled from within.

    Attributes:
        hook: The hook's name.
    """

    def __init__(self, hook: str, raised: BaseException) -> None:
        super().__init__(f"Hook {hook!r} raised {type(raised).__name__}: {raised}")
        self.hook = hook


class IteratorReturned(LightbusException):
    """A handler, a hook, a middleware or a task returned an iterator, such as a generator. Nothing
    runs the iterator's code.

    Attributes:
        function: The function's name.
        returned: The iterator's type.
    """

    def __init__(self, function: str, result: object) -> None:
        returned = type(result)
        super().__init__(
            f"{function}() returned an iterator ({returned.__qualname__}), and nothing runs its "
            f"code. Iterate over it in the function."
        )
        self.function = function
        self.returned = returned


class NoHandlerThread(LightbusException):
    """`run_on_handler_thread` was called where no event is handled."""

    def __init__(self) -> None:
        super().__init__(
            "run_on_handler_thread() has no free thread here. Await it in a middleware's handle(), "
            "before or after call_next(), or in an async hook around a handler."
        )


class WorkerNotReusable(LightbusException):
    """A worker was started a second time, or after it was stopped."""

    def __init__(self) -> None:
        super().__init__("A worker runs once. Make another: lightbus.Worker(bus).")


class ConfigError(LightbusException):
    """A bus cannot be set up from what it was given."""


class InvalidConfig(ConfigError):
    """The configuration cannot be read, or says something that cannot be.

    Attributes:
        source: The file, or another name for where the setting came from.
        path: Where in it, for example ``"$.apis.default"``; empty where it is the whole.
    """

    def __init__(self, problem: str, *, source: str, path: str = "") -> None:
        where = f"{source}: {path}" if path else source
        super().__init__(f"{where}: {problem}")
        self.source = source
        self.path = without_login(path)


class TransportNotFound(ConfigError):
    """No installed package offers the transport that the configuration names.

    Attributes:
        name: The transport's name in the configuration.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Transport {name!r} {problem}")
        self.name = without_login(name)


class InvalidBusModule(ConfigError):
    """The bus module cannot be imported, or holds no bus.

    Attributes:
        module_name: The module's dotted name.
        is_missing: Whether there is no module of that name.
    """

    def __init__(self, module_name: str, problem: str, *, is_missing: bool = False) -> None:
        super().__init__(f"Bus module {module_name!r} {problem}")
        self.module_name = module_name
        self.is_missing = is_missing


class EventletNotSupported(ConfigError):
    """A bus was made or used in a process that eventlet has patched."""

    def __init__(self) -> None:
        super().__init__(
            "Lightbus does not work under eventlet.monkey_patch(), which replaces the threads that "
            "it needs. Run this process on threads, gevent or asyncio instead."
        )


class InvalidSchema(ConfigError):
    """A file is no schema of events.

    Attributes:
        path: The file's path.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} {problem}. `lightbus schema dump` prints a schema of events.")
        self.path = path


class PackageMissing(ConfigError):
    """A package is needed that only an extra of Lightbus installs.

    Attributes:
        extra: The extra's name.
    """

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose}, install the extra: pip install 'lightbus[{extra}]'.")
        self.extra = extra


class HealthPortUnusable(ConfigError):
    """The port on which health is told is taken, or may not be used.

    Attributes:
        host: The address.
        port: The port.
    """

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"Health port {port} on {host} cannot be used: {reason}.")
        self.host = host
        self.port = port


class TransportError(LightbusException):
    """The broker, or the way to it, failed."""


class TransportUnavailable(TransportError):
    """The broker was not reached in time, or was lost; what was to be sent to it was not sent."""


class TransportRefused(TransportError):
    """The broker was reached and said no (credentials, permissions, a missing virtual host), or the
    transport cannot do what is asked of it.
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
    """The broker keeps nothing for a listener, which never ran."""


class ListenerInUse(TransportRefused):
    """The queue of a listener cannot be removed, because it is in use.

    Args:
        reason: Who uses it, and what to do, as the rest of a sentence.

    Attributes:
        listener_name: The listener.
        api_name: The API.
    """

    def __init__(self, listener_name: str, api_name: str, reason: str) -> None:
        super().__init__(f"Listener {listener_name!r} on {api_name} cannot be removed: {reason}.")
        self.listener_name = listener_name
        self.api_name = api_name


class ListenerQueueNotEmpty(TransportRefused):
    """The queue of a listener cannot be removed, because its events would be lost.

    Attributes:
        listener_name: The listener.
        api_name: The API.
        events: How many events are in the queue.
    """

    def __init__(self, listener_name: str, api_name: str, events: int) -> None:
        super().__init__(
            f"{events:,} events wait for listener {listener_name!r} on {api_name}. Have a worker "
            "with this listener handle them, or give --discard to lose them."
        )
        self.listener_name = listener_name
        self.api_name = api_name
        self.events = events


class DeadLettersInUse(TransportRefused):
    """Not all dead letters of a service can be read, because another client uses them.

    Args:
        reason: Who uses them, as the rest of a sentence.
        remedy: What to do, in a sentence.

    Attributes:
        service_name: The service.
        reason: Who uses them.
    """

    def __init__(self, service_name: str, *, reason: str, remedy: str) -> None:
        super().__init__(
            f"Not all dead letters of service {service_name!r} can be read: {reason}. {remedy}"
        )
        self.service_name = service_name
        self.reason = reason


class TopologyMismatch(TransportError):
    """The broker holds an object of this name whose settings differ from the wanted ones.

    Args:
        problem: What people read.

    Attributes:
        argument: The first setting that differs, in the broker's own words; empty where it does
            not tell.
        wanted: What it was to be.
        actual: What it is.
    """

    def __init__(
        self, problem: str, *, argument: str = "", wanted: str = "", actual: str = ""
    ) -> None:
        super().__init__(problem)
        self.argument = argument
        self.wanted = wanted
        self.actual = actual


class SendRefused(TransportError):
    """The broker did not take an event, or no listener wants one that must be wanted.

    Args:
        reason: Why, without a full stop: it ends what people read.

    Attributes:
        event_id: The event's id.
    """

    def __init__(self, event_id: str, reason: str) -> None:
        super().__init__(f"The broker did not take event {event_id}: {reason}.")
        self.event_id = event_id


class SendOutcomeUnknown(TransportError):
    """The broker did not confirm an event in time; it may or may not be stored.

    Firing it again can make a duplicate, not firing it again can lose it.

    Attributes:
        event_id: The event's id.
        timeout: How long the confirmation was waited for, in seconds.
    """

    def __init__(self, event_id: str, timeout: float) -> None:
        super().__init__(
            f"The broker did not confirm event {event_id} within {timeout:.3g} s: its outcome is "
            f"unknown, it may or may not have been stored."
        )
        self.event_id = event_id
        self.timeout = timeout


class TransportClosed(TransportError):
    """The transport was closed while, or before, it was used."""


class ListenerError(LightbusException):
    """An event could not be handled."""


class UnexpectedEvent(ListenerError):
    """An event came that its listener no longer listens for.

    Attributes:
        listener: The listener's name.
        event: The event's canonical name.
    """

    def __init__(self, listener: str, event: str) -> None:
        super().__init__(
            f"Listener {listener!r} does not listen for {event}, as it did once, or does in "
            "another version. Replay it when a version that listens for it runs, or discard it: "
            "`lightbus dead-letters`. `lightbus topology --migrate` has no more of them come."
        )
        self.listener = listener
        self.event = event


class HandlerExited(ListenerError):
    """A handler tried to end the process, or was cancelled from within.

    Attributes:
        listener: The listener's name.
    """

    def __init__(self, listener: str, raised: BaseException) -> None:
        super().__init__(f"Listener {listener!r} raised {type(raised).__name__}: {raised}")
        self.listener = listener


class HandlerTimeout(ListenerError):
    """A handler did not finish within its `acknowledgement_timeout`.

    Attributes:
        listener: The listener's name.
        timeout: The `acknowledgement_timeout`, in seconds.
    """

    def __init__(self, listener: str, timeout: float) -> None:
        super().__init__(
            f"Listener {listener!r} did not finish within its acknowledgement_timeout of "
            f"{timeout:g} s."
        )
        self.listener = listener
        self.timeout = timeout


class StuckHandler(ListenerError):
    """A handler still ran one more `acknowledgement_timeout` after it had timed out.

    Attributes:
        listener: The listener's name.
        timeout: The `acknowledgement_timeout`, in seconds.
    """

    def __init__(self, listener: str, timeout: float) -> None:
        super().__init__(
            f"Listener {listener!r} still runs {timeout:g} s after it timed out and cannot be "
            f"stopped; the worker exits so that its supervisor starts a fresh one."
        )
        self.listener = listener
        self.timeout = timeout


class EventRequeued(LightbusException):
    """A transport requeued an event whose last attempt it could not note.

    The event is redelivered, with an id that identifies it.

    Attributes:
        event_id: The id with which it is redelivered.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(f"Event {event_id} was requeued and will be redelivered.")
        self.event_id = event_id


class AttemptsExhausted(ListenerError):
    """An event came for one more attempt than its listener allows.

    Its last attempts ended with no word from the worker, as when a process is killed.

    Attributes:
        listener: The listener's name.
        max_attempts: How many it allows.
    """

    def __init__(self, listener: str, max_attempts: int) -> None:
        super().__init__(
            f"Listener {listener!r} used up its {max_attempts} attempts; the last one ended "
            f"without a result, as when the worker is killed or times out."
        )
        self.listener = listener
        self.max_attempts = max_attempts
