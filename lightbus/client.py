"""`BusClient`: what programs register and set up on a bus, as ``bus.client``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, tzinfo
from typing import Any, Unpack

from lightbus.api import Api, ApiRegistry
from lightbus.config import Config
from lightbus.handling.hooks import Hooks
from lightbus.handling.listener_registry import ListenerOptions, ListenerRegistry
from lightbus.handling.middleware import Middleware, check_middleware
from lightbus.handling.signatures import Handler
from lightbus.handling.task_registry import AddTask, ScheduleOptions, TaskRegistry
from lightbus.message import EventMessage
from lightbus.publisher import Publisher
from lightbus.schema.files import LoadedSchemas
from lightbus.transport.configured import ConfiguredTransports


class BusClient:
    """Registers APIs, listeners, tasks, hooks and middleware; reached as ``bus.client``.

    Its methods may be called on any thread. Every hook can also take the parameter `client`.

    Attributes:
        config: The configuration of the bus.
        apis: The registered APIs, by name.
        listeners: The listeners, in the order in which they were added.
        tasks: The scheduled tasks and background tasks, in the order in which they were added.
        middleware: The middleware, the outermost first.
        schema: The schema files that fired events must match.
        on_start: Hooks called when a worker starts, before its listeners receive events.
        on_stop: Hooks called after a worker has stopped its listeners.
        before_event_sent: Hooks called with `event_message` before an event is sent. If a hook
            raises an error, the event is not sent and `fire` raises the error.
        after_event_sent: Hooks called with `event_message` after the broker has confirmed it.
        before_event_execution: Hooks called with `event_message` and `listener_name` before a
            handler. If a hook raises an error, the handler counts as failed.
        after_event_execution: Hooks called with the same arguments after a handler has succeeded.

    Raises:
        ConfigError: The settings of a transport are invalid, or a configured transport, or a
            package that it needs, is not installed.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.on_start = Hooks(client=self)
        self.on_stop = Hooks(client=self)
        self.before_event_sent = Hooks(client=self)
        self.after_event_sent = Hooks(client=self)
        self.before_event_execution = Hooks(client=self)
        self.after_event_execution = Hooks(client=self)
        self.middleware: list[Middleware] = []
        self.schema = LoadedSchemas()
        self.apis = ApiRegistry(config)
        self.listeners = ListenerRegistry(config, self.apis.field_names)
        self.tasks = TaskRegistry()
        self.transports = ConfiguredTransports(config)
        self.publisher = Publisher(
            config,
            apis=self.apis,
            schema=self.schema,
            listeners=self.listeners,
            transports=self.transports,
            middleware=self.middleware,
            before_event_sent=self.before_event_sent,
            after_event_sent=self.after_event_sent,
        )

    def __repr__(self) -> str:
        return f"<BusClient of service {self.config.service_name!r}>"

    def register_api(self, api: Api | type[Api]) -> None:
        """Register an API, by its class or an instance, so that its events can be fired.

        Raises:
            ApiError: `api` is not an API, another API has its name, or an event is declared
                incorrectly.
        """
        self.apis.register(api)

    def fire(self, message: EventMessage) -> EventMessage:
        """Send a message. Return it, as middleware changed it, once the broker has confirmed it.

        The message is not checked against its API. The errors are those of `BusPath.fire`.
        """
        return self.publisher.fire(message)

    async def fire_async(self, message: EventMessage) -> EventMessage:
        """Do the same as `fire`, on the running event loop, as `BusPath.fire_async` does."""
        return await self.publisher.fire_async(message)

    def listen_for_event(
        self, api_name: str, event_name: str, listener: Handler, **options: Unpack[ListenerOptions]
    ) -> None:
        """Add a listener for one event. A worker calls it each time the event is fired.

        The options and errors are those of `BusPath.listen`.
        """
        self.listeners.add([(api_name, event_name)], listener, **options)

    def listen_for_events(
        self,
        events: Iterable[tuple[str, str]],
        listener: Handler,
        **options: Unpack[ListenerOptions],
    ) -> None:
        """Add a listener for several events. A worker calls it each time one of them is fired.

        The options and errors are those of `BusPath.listen`.

        Args:
            events: Pairs of an API name and an event name. The APIs need not be registered.
        """
        self.listeners.add(events, listener, **options)

    def every(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        **options: Unpack[ScheduleOptions],
    ) -> AddTask:
        """Decorate a function that every worker calls at regular intervals after it has started.

        ::

            @bus.client.every(minutes=5)
            async def delete_expired_sessions() -> None: ...

        Calls do not overlap. Calls that are due during another call are skipped.

        Args:
            seconds: The interval; `minutes`, `hours` and `days` are added to it.

        Raises:
            ApiError: The interval is not positive, an option is invalid, or the function has
                required parameters or is a generator.
        """
        return self.tasks.every(seconds=seconds, minutes=minutes, hours=hours, days=days, **options)

    def schedule(
        self, cron: str, *, timezone: str | tzinfo = UTC, **options: Unpack[ScheduleOptions]
    ) -> AddTask:
        """Decorate a function that every worker calls at the times of a cron expression.

        ::

            @bus.client.schedule("30 4 * * mon-fri", timezone="Europe/Berlin")
            def send_report() -> None: ...

        Args:
            cron: Five fields as in Debian's cron, or six with seconds first.
            timezone: A name from the IANA time zone database, or a `tzinfo`.

        Raises:
            ApiError: The expression or the time zone is invalid, or as for `every`.
        """
        return self.tasks.schedule(cron, timezone=timezone, **options)

    def add_background_task(
        self, task: Coroutine[Any, Any, Any] | Callable[[], Awaitable[Any]]
    ) -> None:
        """Run an async function in every worker, or a coroutine in one worker.

        It is cancelled when the worker stops. If it raises an error, the worker exits.

        Raises:
            ApiError: `task` is neither, or the function has required parameters.
        """
        self.tasks.add_background_task(task)

    def add_middleware(self, middleware: Middleware) -> None:
        """Run `middleware` around the sending and the handling of every event.

        The middleware that was added first is the outermost.

        Raises:
            ApiError: Its `send` or `handle` is missing, or is a generator.
        """
        check_middleware(middleware)
        self.middleware.append(middleware)

    def close(self) -> None:
        """Close all connections, within 6 seconds. The next use of the bus opens new ones.

        Raises:
            CannotBlockHere: An event loop runs on this thread; use `close_async`.
        """
        self.transports.close_blocking()

    async def close_async(self) -> None:
        """Do the same as `close`, on the running event loop."""
        await self.transports.close()
