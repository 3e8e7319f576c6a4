"""`create()` and `get_bus()`, and the bus that they return, with paths to its events."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from lightbus import config as configuration
from lightbus.api import Api, api_class_of
from lightbus.client import BusClient
from lightbus.concurrency import green
from lightbus.concurrency.lazy import lazy_property
from lightbus.exceptions import ApiError, ConfigError
from lightbus.handling.signatures import Handler
from lightbus.message import EventMessage
from lightbus.policy import OnError

DEFAULT_MODULE = "bus"

# Files of Lightbus and Python, which are not the place of an error in a bus module
_LIBRARY_FILES = (str(Path(__file__).parent), str(Path(importlib.__file__).parent), "<frozen")

SomeApi = TypeVar("SomeApi", bound=Api)


class BusPath:
    """A name on the bus: an API, a part of the dotted name of an API, or an event.

    Its attributes are the next names, as in ``bus.auth.user_created``. A name that begins with an
    underscore raises `AttributeError`.
    """

    def __init__(self, client: BusClient, parts: tuple[str, ...] = ()) -> None:
        self._client = client
        self._publisher = client.publisher
        self._parts = parts

    def __getattr__(self, name: str) -> BusPath:
        if name.startswith("_"):
            # Without `repr`, which needs attributes that `copy` has not set yet.
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        path = BusPath(self._client, (*self._parts, name))
        # Stored, so that another use of the event creates no objects.
        self.__dict__[name] = path
        return path

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._next_names()})

    def __repr__(self) -> str:
        return f"<BusPath {'.'.join(('bus', *self._parts))}>"

    def fire(self, /, *args: Any, **kwargs: Any) -> EventMessage:
        """Fire this event and return its message once the broker has confirmed it.

        Use it in synchronous code, on a thread without a running event loop. It blocks the thread
        until the broker confirms, for `fire_timeout` seconds at most. If `KeyboardInterrupt`, or
        another exception from a signal handler, interrupts the call, the event may be stored.

        Raises:
            ApiError: This is not an event, because its path is too short.
            EventNotFound: The API is not registered on this bus, or has no such event.
            InvalidEventArguments: Arguments are missing, do not belong to the event, have wrong
                values, or are positional where the event does not accept that.
            UnencodableValue: An argument cannot be encoded as JSON.
            CannotBlockHere: An event loop runs on this thread; use `fire_async`.
            TransportUnavailable: The broker was not reached in time; the event was not sent.
            TransportRefused: The broker refused the connection or the permission to send; the event
                was not sent.
            TopologyMismatch: An object at the broker has other settings than this event needs; the
                event was not sent.
            SendRefused: The broker refused the event, or `require_listeners` is set and the event
                has no listener.
            SendOutcomeUnknown: The broker did not confirm in time; the event may be stored.
            TransportClosed: The bus was closed during the call; the event may be stored.
            Exception: A `before_event_sent` hook, or a middleware before it sends, raised it; the
                event was not sent.
        """
        return self._publisher.fire(self._message(args, kwargs))

    async def fire_async(self, /, *args: Any, **kwargs: Any) -> EventMessage:
        """Fire this event on the running event loop; see `fire`.

        If the call is cancelled, for example by `asyncio.timeout`, the event may be stored. The
        errors are those of `fire`, except `CannotBlockHere`.
        """
        return await self._publisher.fire_async(self._message(args, kwargs))

    def listen(
        self,
        listener: Handler,
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None:
        """Add a listener. A worker calls `listener` with each of these events.

        Args:
            listener: An async function, which runs on the worker's event loop, or a sync function,
                which runs in a thread.
            listener_name: Names the listener's durable queue, within this service and API. Keep it
                stable. Default: the function's name, with a warning, because a renamed function
                would get a new queue.
            on_error: What happens when the listener fails. Default: `on_error` of the API in the
                configuration, which is `OnError.SHUTDOWN` by default.
            concurrency: How many events the listener handles at once. With more than 1, events are
                not handled in order.

        Raises:
            ApiError: This is not an event: its path is too short.
            DuplicateListenerName: The API has another listener of this name.
            InvalidName: `listener_name`, or the name of the API or the event, is invalid.
            InvalidEventListener: `listener` cannot be called with the event, or another argument is
                invalid.
            EventNotFound: The API is registered and has no such event.
        """
        api_name, event_name = self._api_and_event
        self._client.listen_for_event(
            api_name,
            event_name,
            listener,
            listener_name=listener_name,
            on_error=on_error,
            concurrency=concurrency,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse to be called, as a remote procedure would be.

        Raises:
            ApiError: Always. It says what to call instead.
        """
        name = ".".join(self._parts)
        *api_parts, last = self._parts or ("",)
        api = self._client.apis.get(".".join(api_parts))
        if api is not None and last in api.events:
            raise ApiError(f"{name} is an event. Fire it with bus.{name}.fire(...).")
        raise ApiError(
            f"bus.{name}(...) looks like a remote procedure call, which Lightbus does not support. "
            "Call .fire(...), .fire_async(...) or .listen(...) on an event."
        )

    def _message(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> EventMessage:
        api_name, event_name = self._api_and_event
        return self._publisher.message(api_name, event_name, kwargs, args)

    @lazy_property
    def _api_and_event(self) -> tuple[str, str]:
        *api_parts, event_name = self._parts or ("",)
        if not api_parts:
            raise ApiError(
                f"{self!r} is not an event. The path of an event is bus.<api name>.<event name>."
            )
        return ".".join(api_parts), event_name

    def _next_names(self) -> set[str]:
        names = {
            tuple(f"{api_name}.{event_name}".split("."))
            for api_name, api in self._client.apis.items()
            for event_name in api.events
        }
        depth = len(self._parts)
        return {name[depth] for name in names if len(name) > depth and name[:depth] == self._parts}


class Bus(BusPath):
    """The root of a bus. `create` returns it.

    Attributes:
        client: Registers APIs, adds hooks and closes the bus.
        schema: Loads schema files, against which fired events are checked.
    """

    def __init__(self, client: BusClient) -> None:
        super().__init__(client)
        self.client = client
        self.schema = client.schema
        self._typed: dict[type[Api], Api] = {}

    def __getitem__(self, api: type[SomeApi]) -> SomeApi:
        """Return the API of class `api` on this bus, with its types for type checkers.

        ``bus[AuthApi].user_created`` is the same as ``bus.auth.user_created``.

        Raises:
            ApiError: `api` is not an API class.
        """
        api_class = api_class_of(api)
        found = self._typed.get(api_class)
        if found is None:
            path: BusPath = self
            for name in api_class.meta.name.split("."):
                path = getattr(path, name)
            found = self._typed[api_class] = api_class.on_bus(path)
        return cast("SomeApi", found)

    def __repr__(self) -> str:
        return f"<Bus of service {self.client.config.service_name!r}>"


def create(
    config: Mapping[str, Any] | str | Path | None = None,
    *,
    config_file: str | Path | None = None,
    service_name: str | None = None,
    process_name: str | None = None,
) -> Bus:
    """Create a bus. It opens no connection until it is used.

    Args:
        config: The settings, or the path of a config file. Default: ``$LIGHTBUS_CONFIG``, else
            ``lightbus.yaml`` (or .yml, .json, .toml) in the current directory, else the defaults of
            all settings.
        config_file: The path of a config file, as an alternative to `config`.
        service_name: The name of the service, whose workers share the events of its listeners.
            Default: the name in the configuration, else the name of the current directory.
        process_name: The name of this process at the broker. It may contain placeholders such as
            ``{pid}``.

    Raises:
        ConfigError: The file cannot be read; a setting is unknown, has a wrong value, or names an
            environment variable that is not set; a transport or a package that it needs is not
            installed; or eventlet has patched this process.
        InvalidName: The name of the service or of the process is not valid.
    """
    green.refuse_eventlet()
    loaded = configuration.load(
        config if config is not None else config_file,
        service_name=service_name,
        process_name=process_name,
    )
    return Bus(BusClient(loaded))


def get_bus(module_name: str | None = None) -> Bus:
    """Import the bus module and return its ``bus``.

    Args:
        module_name: The dotted name of the module. Default: ``$LIGHTBUS_MODULE``, else ``bus``.

    Raises:
        ConfigError: The module cannot be found, raises when it is imported, or has no ``bus``.
    """
    name = module_name or os.environ.get("LIGHTBUS_MODULE") or DEFAULT_MODULE
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"Bus module {name!r} is not the dotted name of a module, such as 'bus' or 'shop.bus'."
        )
    try:
        module = importlib.import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"Bus module {name!r} was not found; looked in {Path.cwd()} and sys.path. "
                f"Name it with --bus or LIGHTBUS_MODULE."
            ) from error
        raise ConfigError(
            f"Bus module {name!r} needs {error.name!r}, which is not installed."
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"Bus module {name!r} raised {_describe_error(error)} when it was imported."
        ) from error
    bus = getattr(module, "bus", None)
    if not isinstance(bus, Bus):
        found = "has no attribute 'bus'" if bus is None else f"has a 'bus' that is {bus!r}"
        raise ConfigError(f"Bus module {name!r} {found}. Add to it: bus = lightbus.create()")
    return bus


def _describe_error(error: BaseException) -> str:
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        # The message of a syntax error has its place. Others belong to the last line of user code.
        if not (isinstance(error, SyntaxError) or file.startswith(_LIBRARY_FILES)):
            place = f" ({file}, line {line})"
    return f"{type(error).__name__}: {error}{place}"
