"""`BusClient`: knows the APIs and the listeners, fires events, opens and closes transports."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from datetime import UTC, timedelta, tzinfo
from typing import Any, TypeVar

import attrs
import msgspec

from lightbus.api import Api, api_class_of
from lightbus.config import DEFAULT_TRANSPORT, Config, TransportSettings, convert
from lightbus.exceptions import (
    DuplicateListenerName,
    InvalidApi,
    InvalidConfig,
    InvalidEventListener,
    InvalidMiddleware,
    InvalidTask,
    UnknownApi,
)
from lightbus.handling.calling import is_generator, name_of
from lightbus.handling.hooks import Hooks
from lightbus.handling.listener import Listener
from lightbus.handling.middleware import Middleware, send_through
from lightbus.handling.signatures import CallPlan, Handler, plan_call
from lightbus.handling.tasks import Task, at_times, every, in_background
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.names import checked_name
from lightbus.policy import OnError
from lightbus.schema.events import LoadedSchemas
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import Capability
from lightbus.transport.pool import OpenTransport, TransportPool, asyncio_loop
from lightbus.transport.records import AsyncAPIParts, Subscription
from lightbus.transport.registry import find_transport

_log = get_logger(__name__)

Scheduled = TypeVar("Scheduled", bound=Callable[[], Any])


@attrs.frozen
class _TransportChoice:
    """The transport that the configuration gives an API, ready to be made."""

    name: str
    transport: type[EventTransport]
    settings: Any = attrs.field(repr=False)
    key: str = attrs.field(repr=False)


class BusClient:
    """What a program does with its bus beside firing and listening; reached as ``bus.client``.

    Every method may be called from any thread. Every hook is also offered `client`.

    Attributes:
        config: The configuration that the bus was created with.
        schema: Loads files that what is fired has to fit.
        middleware: What `add_middleware` was given, in that order.
        metrics_page: Returns the content type and the text of what a worker shows at ``/metrics``;
            None where nothing is counted.
        on_start: Hooks called when a worker starts, before its listeners take events.
        on_stop: Hooks called when a worker has stopped its listeners.
        before_event_sent: Hooks called with `event_message` before an event is sent. What one
            raises, `fire` raises, and nothing is sent.
        after_event_sent: Hooks called with `event_message` once an event is stored.
        before_event_execution: Hooks called with `event_message` and `listener_name` before a
            handler. One that raises counts as the handler raising.
        after_event_execution: The same, after a handler that did not raise.

    Raises:
        InvalidConfig: The settings of a transport are wrong.
        TransportNotFound: No installed package offers a transport that is configured, or a package
            that it needs is not installed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.schema = LoadedSchemas()
        self.middleware: list[Middleware] = []
        self.metrics_page: Callable[[], tuple[str, bytes]] | None = None
        self.on_start = Hooks()
        self.on_stop = Hooks()
        self.before_event_sent = Hooks()
        self.after_event_sent = Hooks()
        self.before_event_execution = Hooks()
        self.after_event_execution = Hooks()
        self._apis: dict[str, type[Api]] = {}
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._subscriptions: defaultdict[tuple[str, str], list[Subscription]] = defaultdict(list)
        self._tasks: list[Task] = []
        self._added: list[Callable[[Listener | Task], None]] = []
        self._choices = _choose_transports(config)
        # The last one is in use.
        self._all_choices = [self._choices]
        self._choosing = threading.Lock()
        self._transports = TransportPool(
            self._make_transport, lambda api_name: self._choice(api_name).key
        )

    def __repr__(self) -> str:
        return f"<BusClient of service {self.config.service_name!r}>"

    @property
    def apis(self) -> Mapping[str, type[Api]]:
        """The registered APIs, by name."""
        return self._apis

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners, in the order in which they were added."""
        return tuple(self._listeners.values())

    def register_api(self, api: Api | type[Api]) -> None:
        """Make the events of `api`, a class or an instance of it, known to this bus.

        Raises:
            InvalidApi: `api` is no API, another one has its name, or one of its events is declared
                wrongly.
        """
        api_class = api_class_of(api)
        for event in api_class.events.values():
            event.check()
        name = api_class.meta.name
        is_new = name not in self._apis
        if self._apis.setdefault(name, api_class) is not api_class:
            raise InvalidApi(
                f"Another API is already registered as {name!r}: {self._apis[name]!r}."
            )
        if is_new:
            self._warn_of_unchecked(api_class)

    def _warn_of_unchecked(self, api: type[Api]) -> None:
        if not self.config.api(api.meta.name).validate:
            return
        for event_name, event in api.events.items():
            for part in event.decoder.unsupported if event.decoder is not None else ():
                _log.warning(
                    "Part of an event is fired without a check of its type.",
                    api=api.meta.name,
                    event_name=event_name,
                    place=part.path,
                    reason=part.reason,
                )

    def message(
        self,
        api_name: str,
        event_name: str,
        given: Mapping[str, Any],
        by_position: tuple[Any, ...] = (),
    ) -> EventMessage:
        """Return the message that firing an event with the arguments `given` would send.

        Args:
            by_position: Arguments without a name, for events that are declared to take some.

        Raises:
            UnknownApi: The API is not registered.
            EventNotFound: It has no such event.
            InvalidEventArguments: Arguments are missing, do not belong to the event, or are wrong.
            InvalidParameters: The event takes no arguments, or not so many, by position, or one is
                given twice.
            UnencodableValue: An argument cannot travel as JSON.
        """
        api = self._api(api_name)
        event = api.event(event_name)
        canonical_name = f"{api_name}.{event_name}"
        if by_position:
            given = event.with_names(canonical_name, by_position, given)
        message = EventMessage.create(
            api_name,
            event_name,
            event.arguments(canonical_name, given),
            version=api.meta.version,
            service_name=self.config.service_name,
        )
        if event.decoder is not None and self.config.api(api_name).validate:
            event.check_values(canonical_name, message.body)
        if self.schema:
            self.schema.check(canonical_name, message.kwargs)
        return message

    def fire(self, message: EventMessage) -> EventMessage:
        """Send `message`; return it, as it was sent, when the broker has confirmed it.

        It waits for the broker for `fire_timeout` seconds at most. If the call is interrupted, for
        example by `KeyboardInterrupt`, the message may be stored.

        Raises:
            CannotBlockHere: An event loop runs on this thread.
            TransportError: It was not sent, was refused, or its outcome is unknown, as
                `BusPath.fire` says.
            Exception: What a `before_event_sent` hook, or a middleware before it sends, raised; the
                message was not sent.
        """
        return self._transports.call_blocking(
            self.fire_async, message, blocking="fire()", instead="`await ....fire_async(...)`"
        )

    async def fire_async(self, message: EventMessage) -> EventMessage:
        """Send `message`; return it, as it was sent, when the broker has confirmed it.

        If the call is cancelled, the message may be stored. The errors are those of `fire`, except
        `CannotBlockHere`.
        """
        if not self.middleware:
            await self._send(message)
            return message
        asyncio_loop("fire_async()")  # before a middleware runs
        sent, is_stored = message, False

        async def send(message: EventMessage) -> None:
            nonlocal sent, is_stored
            sent = message
            await self._send(message)
            is_stored = True

        try:
            await send_through(self.middleware, message, send)
        except Exception:
            if not is_stored:
                raise
            # Raised, it would have the caller fire the event again.
            _log.exception("A middleware failed; the event is stored.", event_id=sent.id)
        return sent

    async def _send(self, message: EventMessage) -> None:
        if self.before_event_sent:
            asyncio_loop("fire_async()")
            await self.before_event_sent.run(client=self, event_message=message)
        api_config = self.config.api(message.api_name)
        timeout = api_config.fire_timeout
        opened = self.open_transport(message.api_name)
        # An event fired after listen() reaches that listener, even before a worker has started.
        wanted = self._subscriptions.get((message.api_name, message.event_name), ())
        if not opened.is_ready_for(wanted):
            now = asyncio.get_running_loop().time
            deadline = now() + timeout
            await opened.opened(timeout=timeout)
            for subscription in wanted:
                await opened.declare(subscription, timeout=deadline - now())
            timeout = deadline - now()
        await opened.transport.send(
            message, timeout=timeout, require_listeners=api_config.require_listeners
        )
        if self.after_event_sent:
            await self._run_after_event_sent(message)

    async def _run_after_event_sent(self, message: EventMessage) -> None:
        try:
            await self.after_event_sent.run(client=self, event_message=message)
        except Exception:
            # The event is stored: raising would have the caller fire it again.
            _log.exception(
                "An after_event_sent hook failed; the event is stored.",
                event_id=message.id,
                api=message.api_name,
                event_name=message.event_name,
            )

    def listen_for_event(
        self,
        api_name: str,
        event_name: str,
        listener: Handler,
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None:
        """Do what `listen_for_events` does, for one event.

        The arguments and errors are those of `listen_for_events`.
        """
        self.listen_for_events(
            [(api_name, event_name)],
            listener,
            listener_name=listener_name,
            on_error=on_error,
            concurrency=concurrency,
        )

    def listen_for_events(
        self,
        events: Iterable[tuple[str, str]],
        listener: Handler,
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None:
        """Call `listener` for each of the events when a worker runs.

        Args:
            events: Pairs of an API's and an event's name. The API need not be registered here.
            listener: An async function, or a sync one, which runs in a thread.
            listener_name: The listener's name within this service and API, which names its durable
                queue. Keep it stable. Default: the function's name, with a warning, because
                renaming the function would then lose its events.
            on_error: What happens when the listener fails. Default: `on_error` of the API in the
                configuration, which is `OnError.SHUTDOWN` by default.
            concurrency: How many events it handles at once; with more than one, not in order.

        Raises:
            DuplicateListenerName: The name is taken on one of the APIs.
            InvalidName: `listener_name`, or a name in `events`, is not valid.
            InvalidEventListener: `listener` cannot be called with one of the events, there is
                none, or another argument is wrong.
            EventNotFound: A registered API has no such event.
        """
        if not callable(listener):
            raise InvalidEventListener(
                f"{listener!r} cannot listen for events: it is not callable."
            )
        if not isinstance(on_error, OnError | None):
            raise InvalidEventListener(f"on_error is {on_error!r}; give one of lightbus.OnError.")
        if not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidEventListener(f"concurrency is {concurrency!r}; give 1 or more.")
        name = self._listener_name(listener, listener_name)
        by_api: defaultdict[str, set[str]] = defaultdict(set)
        for api_name, event_name in _pairs(events, name):
            by_api[checked_name("API", api_name)].add(checked_name("event", event_name))
            plan = self.plan_call(listener, api_name, event_name)
            for part in plan.decoder.unsupported:
                _log.warning(
                    "A listener gets part of an event as JSON has it, not as its hint says.",
                    listener=name,
                    api=api_name,
                    event_name=event_name,
                    place=part.path,
                    reason=part.reason,
                )
        for api_name in by_api:
            if (api_name, name) in self._listeners:
                raise DuplicateListenerName(name, api_name)
        for api_name, event_names in by_api.items():
            api_config = self.config.api(api_name)
            self._add_listener(
                Listener(
                    name=name,
                    handler=listener,
                    api_name=api_name,
                    events=frozenset(event_names),
                    on_error=OnError(api_config.on_error) if on_error is None else on_error,
                    acknowledgement_timeout=api_config.acknowledgement_timeout,
                    retry=api_config.retry,
                    max_attempts=api_config.max_attempts,
                    concurrency=concurrency,
                )
            )

    def _add_listener(self, listener: Listener) -> None:
        self._listeners[listener.api_name, listener.name] = listener
        subscription = listener.subscription(self.config.service_name)
        for event_name in listener.events:
            self._subscriptions[listener.api_name, event_name].append(subscription)
        self._notify(listener)

    def notify_of_additions(self, notify: Callable[[Listener | Task], None]) -> Callable[[], None]:
        """Call `notify` with each listener and task added from now on, on the thread that adds it;
        return what ends that.
        """
        self._added.append(notify)
        return lambda: self._added.remove(notify)

    def _notify(self, added: Listener | Task) -> None:
        for notify in self._added:
            notify(added)

    def add_middleware(self, middleware: Middleware) -> None:
        """Wrap `middleware` around the sending and the handling of every event, inside the
        middleware that was added before.

        Raises:
            InvalidMiddleware: Its `send` or `handle` is a generator, or is missing.
        """
        for name in ("send", "handle"):
            method = getattr(middleware, name, None)
            if not callable(method):
                raise InvalidMiddleware(
                    f"{middleware!r} cannot be a middleware: it has no method {name}(). Derive its "
                    f"class from lightbus.middleware.Middleware, and pass an instance."
                )
            if is_generator(method):
                raise InvalidMiddleware(
                    f"{middleware!r} cannot be a middleware: its method {name}() is a generator. "
                    f"Replace the yield with `await call_next(...)`."
                )
        self.middleware.append(middleware)

    def every(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        also_run_immediately: bool = False,
        on_error: OnError = OnError.SHUTDOWN,
    ) -> Callable[[Scheduled], Scheduled]:
        """Decorate a function that every worker calls at even intervals, counted from its start.

        ::

            @bus.client.every(minutes=5)
            async def tidy() -> None: ...

        One call follows the other; a call that takes longer skips the times that go by meanwhile.

        Args:
            seconds: The interval; `minutes`, `hours` and `days` are added to it.
            also_run_immediately: Whether it is called when the worker starts, too.
            on_error: With `OnError.SHUTDOWN`, the worker exits where the function raises; with
                `OnError.ACKNOWLEDGE_AND_LOG`, the error is logged.

        Raises:
            InvalidTask: The interval is no positive length of time, `on_error` is another one, or
                the function cannot be called without arguments, or is a generator.
        """
        try:
            period = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)
        except (OverflowError, TypeError, ValueError) as error:
            raise InvalidTask(f"An interval is no length of time: {error}.") from error

        return self._adding(
            functools.partial(
                every,
                period=period,
                also_run_immediately=also_run_immediately,
                on_error=on_error,
            )
        )

    def schedule(
        self,
        cron: str,
        *,
        timezone: str | tzinfo = UTC,
        also_run_immediately: bool = False,
        on_error: OnError = OnError.SHUTDOWN,
    ) -> Callable[[Scheduled], Scheduled]:
        """Decorate a function that every worker calls at the times of a cron expression.

        ::

            @bus.client.schedule("30 4 * * mon-fri", timezone="Europe/Berlin")
            def report() -> None: ...

        Where clocks are put forward or back, it does what Debian's cron does.

        Args:
            cron: Five fields as in Debian's cron, or six, the first of which is of seconds.
            timezone: Whose times these are: a name in the IANA time zone database, or a `tzinfo`.
            also_run_immediately: As for `every`.
            on_error: As for `every`.

        Raises:
            InvalidTask: The expression or the time zone is wrong, or as for `every`.
        """
        return self._adding(
            functools.partial(
                at_times,
                cron=cron,
                timezone=timezone,
                also_run_immediately=also_run_immediately,
                on_error=on_error,
            )
        )

    def _adding(
        self, make_task: Callable[[Callable[[], Any]], Task]
    ) -> Callable[[Scheduled], Scheduled]:
        """Return a decorator that adds the task made of a function."""

        def decorate(function: Scheduled) -> Scheduled:
            self._add_task(make_task(function))
            return function

        return decorate

    def add_background_task(
        self, task: Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]]
    ) -> None:
        """Run an async function without parameters in every worker, or a coroutine in one worker.

        A coroutine can run only once: the first worker that runs tasks awaits it. It is cancelled
        when the worker stops. Where it raises, the worker exits.

        Raises:
            InvalidTask: `task` is neither, or has a parameter that must be given.
        """
        self._add_task(in_background(task))

    def _add_task(self, task: Task) -> None:
        self._tasks.append(task)
        self._notify(task)

    def take_task(self, task: Task) -> bool:
        """Let one worker have a task that no other can have; return whether none had it before."""
        try:
            self._tasks.remove(task)
        except ValueError:
            return False
        return True

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The scheduled and the background tasks, in the order in which they were added."""
        return tuple(self._tasks)

    def _listener_name(self, listener: Handler, given: str | None) -> str:
        if given is not None:
            return checked_name("listener", given)
        name = checked_name("listener", name_of(listener))
        _log.warning(
            "A listener has no listener_name, so its function's name is used. Renaming the "
            "function would leave the events behind that wait for it.",
            listener=name,
        )
        return name

    def plan_call(self, handler: Handler, api_name: str, event_name: str) -> CallPlan:
        """Return how `handler` is called for an event.

        Raises:
            InvalidEventListener: It cannot be.
            EventNotFound: The API is registered, and has no such event.
        """
        return plan_call(
            handler,
            f"{api_name}.{event_name}",
            self._known_fields(api_name, event_name),
            casting=self.config.api(api_name).casting,
        )

    def _known_fields(self, api_name: str, event_name: str) -> tuple[str, ...] | None:
        """Return the fields of an event, or None where this process cannot know them all."""
        if api_name not in self._apis:
            return None
        event = self._apis[api_name].event(event_name)
        return None if event.admits_any else tuple(event.parameters)

    def open_transport(self, api_name: str) -> OpenTransport:
        """Return the transport of an API on the running event loop.

        Raises:
            NoEventLoop: No event loop runs on this thread.
        """
        return self._transports.transport(api_name)

    async def opened_transport(self, api_name: str) -> EventTransport:
        """Return the transport of an API on the running event loop, once it is open.

        Raises:
            TransportError: It cannot be opened within the `fire_timeout` seconds of the API.
        """
        timeout = self.config.api(api_name).fire_timeout
        return await self.open_transport(api_name).opened(timeout=timeout)

    def transport_name(self, api_name: str) -> str:
        """Return the name, in the configuration, of the transport that an API has."""
        return self._choice(api_name).name

    def lacking(self, api_name: str) -> Mapping[Capability, str]:
        """Return what the transport of an API cannot do, and why, in a sentence."""
        return self._choice(api_name).transport.lacking

    def described_for_asyncapi(self, api_name: str, event_name: str) -> AsyncAPIParts:
        """Return what the transport of an API says of an event in an AsyncAPI document (3.0.0)."""
        choice = self._choice(api_name)
        return choice.transport.asyncapi(choice.settings, api_name, event_name)

    @property
    def known_api_names(self) -> set[str]:
        """The APIs that are registered, listened to, or named in the configuration."""
        named = {name for name in self.config.apis if name != "default"}
        return {*self.apis, *(listener.api_name for listener in self.listeners), *named}

    def one_api_of_each_place(self) -> list[str]:
        """Return, of the APIs that are known here, one for each place that events are kept in."""
        by_place = {self.transport_described(name): name for name in sorted(self.known_api_names)}
        return list(by_place.values()) or ["default"]

    def transport_described(self, api_name: str) -> str:
        """Return, for people, which transport an API has and where it leads."""
        choice = self._choice(api_name)
        return f"{choice.name} ({choice.settings})"

    @contextlib.contextmanager
    def using_transport(
        self,
        event_transport: TransportSettings,
        *,
        on_sent: Callable[[EventMessage], object] | None = None,
    ) -> Iterator[None]:
        """Use one transport for every API while the block runs.

        Such blocks may overlap. The block that started last applies.

        Args:
            event_transport: A transport's name, with its settings.
            on_sent: Called with each event that the transport has stored for this bus.

        Raises:
            InvalidConfig: The settings are wrong.
            TransportNotFound: No installed package offers the transport, or a package that it needs
                is not installed.
            ValueError: It does not name exactly one.
        """
        choice = _choose_transport(event_transport, "$", "using_transport()")
        if on_sent is not None:
            choice = attrs.evolve(choice, transport=_reporting(choice.transport, on_sent))
        choices = {"default": choice}
        with self._choosing:
            self._all_choices.append(choices)
            self._choices = choices
        try:
            yield
        finally:
            with self._choosing:
                self._all_choices = [one for one in self._all_choices if one is not choices]
                self._choices = self._all_choices[-1]

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncGenerator[None]:
        """Be between the `on_start` hooks, which may add listeners, and the `on_stop` hooks.

        Raises:
            Exception: What a hook raised; after one of `on_start`, those of `on_stop` are not
                called.
        """
        await self.on_start.run(client=self)
        try:
            yield
        finally:
            await self.on_stop.run(client=self)

    async def close_async(self) -> None:
        """Close every connection of this bus, in 6 seconds at most. Its next use opens new ones."""
        await self._transports.close()

    def close(self) -> None:
        """Do what `close_async` does, on a thread without an event loop.

        Raises:
            CannotBlockHere: An event loop runs on this thread.
        """
        self._transports.close_blocking()

    def _api(self, api_name: str) -> type[Api]:
        try:
            return self._apis[api_name]
        except KeyError:
            raise UnknownApi(api_name, self._apis) from None

    def _choice(self, api_name: str) -> _TransportChoice:
        choice = self._choices.get(api_name) or self._choices.get("default")
        return choice or _transport_in(self.config, "default")

    def _make_transport(self, api_name: str) -> EventTransport:
        choice = self._choice(api_name)
        name = f"{self.config.service_name}/{self.config.process_name()}"
        return choice.transport(choice.settings, client_name=name)


def _pairs(events: Iterable[tuple[str, str]], listener_name: str) -> list[tuple[str, str]]:
    try:
        pairs = [(api_name, event_name) for api_name, event_name in events]
    except (TypeError, ValueError) as error:
        raise InvalidEventListener(
            f"Listener {listener_name!r} needs its events as pairs of names, such as "
            f"[('auth', 'user_created')], and was given {events!r}."
        ) from error
    if not pairs:
        raise InvalidEventListener(f"Listener {listener_name!r} was given no event to listen for.")
    return pairs


def _reporting(
    transport: type[EventTransport], on_sent: Callable[[EventMessage], object]
) -> type[EventTransport]:
    """Return a transport that calls `on_sent` with each event that it has sent."""

    async def send(self: Any, message: EventMessage, **options: Any) -> None:
        await transport.send(self, message, **options)
        on_sent(message)

    return type(transport.__name__, (transport,), {"send": send})


def _choose_transports(config: Config) -> dict[str, _TransportChoice]:
    choices = {}
    for name, api in config.apis.items():
        try:
            choices[name] = _transport_in(config, name)
        except InvalidConfig:
            # What nobody has written down is an error only for an API that needs it.
            is_named = name != "default" or api.event_transport != {DEFAULT_TRANSPORT: None}
            if is_named or len(config.apis) == 1:
                raise
    return choices


def _transport_in(config: Config, api_name: str) -> _TransportChoice:
    transport = config.apis[api_name].event_transport
    return _choose_transport(transport, f"$.apis.{api_name}", config.source)


def _choose_transport(
    event_transport: TransportSettings, path: str, source: str
) -> _TransportChoice:
    ((name, settings),) = event_transport.items()
    transport = find_transport(name)
    return _TransportChoice(
        name=name,
        transport=transport,
        settings=convert(
            settings or {},
            transport.Settings,
            source=source,
            path=f"{path}.event_transport.{name}",
        ),
        key=f"{name} {msgspec.json.encode(settings or {}, order='sorted').decode()}",
    )
