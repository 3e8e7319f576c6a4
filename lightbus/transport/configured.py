"""`ConfiguredTransports`: the transports of a bus, as its configuration selects them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgspec

from lightbus.config import DEFAULT_TRANSPORT, Config, TransportSettings
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError
from lightbus.message import EventMessage
from lightbus.transport.contract import EventTransport
from lightbus.transport.features import AsyncAPISource, lists
from lightbus.transport.pool import TransportPool
from lightbus.transport.records import AsyncAPIParts
from lightbus.transport.registry import find_transport


@attrs.frozen
class _Selection:
    """A transport class and the settings that its instances get.

    Attributes:
        name: The transport's name in the configuration.
        key: Equal for selections that can share an instance.
    """

    name: str
    transport: type[EventTransport]
    settings: Any = attrs.field(repr=False)
    key: str = attrs.field(repr=False)


class ConfiguredTransports(TransportPool):
    """The transports of a bus. Each event loop has its own instances.

    Args:
        config: Selects a transport for each API.

    Raises:
        ConfigError: The settings of a transport are invalid, or a configured transport, or a
            package that it needs, is not installed.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(self._new_transport, self._key_of_api)
        self._config = config
        self._selected = _select_all(config)
        # The last one applies.
        self._overrides = [self._selected]
        self._override_lock = threading.Lock()

    async def open(self, api_name: str) -> EventTransport:
        """Return the transport of an API on the running event loop. Open it if necessary.

        Raises:
            ApiError: No event loop runs on this thread.
            TransportError: The transport could not be opened within the API's `fire_timeout`.
        """
        timeout = self._config.api(api_name).fire_timeout
        return await self.transport(api_name).opened(timeout=timeout)

    def name(self, api_name: str) -> str:
        """Return the name that an API's transport has in the configuration."""
        return self._selection(api_name).name

    def describe(self, api_name: str) -> str:
        """Return the name and the settings of an API's transport, without passwords.

        APIs that share a broker have the same description.
        """
        selection = self._selection(api_name)
        return f"{selection.name} ({selection.settings})"

    def transport_class(self, api_name: str) -> type[EventTransport]:
        """Return the class of an API's transport."""
        return self._selection(api_name).transport

    def asyncapi(self, api_name: str, event_name: str) -> AsyncAPIParts:
        """Return what the transport adds to an event's channel in an AsyncAPI document (3.0.0)."""
        selection = self._selection(api_name)
        transport = selection.transport
        if not lists(transport, AsyncAPISource):
            return AsyncAPIParts()
        return transport.asyncapi(selection.settings, api_name, event_name)

    @contextlib.contextmanager
    def override(
        self,
        event_transport: TransportSettings,
        *,
        on_sent: Callable[[EventMessage], object] | None = None,
    ) -> Iterator[None]:
        """Use one transport for every API while the block runs.

        Blocks may overlap. The block that started last applies.

        Args:
            event_transport: The name of a transport, with its settings.
            on_sent: Called with each event that this bus has sent through the transport.

        Raises:
            ConfigError: The settings are invalid, or the transport, or a package that it needs, is
                not installed.
            ValueError: `event_transport` does not name exactly one transport.
        """
        selection = _select(event_transport, "$", "ConfiguredTransports.override()")
        if on_sent is not None:
            reporting = _reporting(selection.transport, on_sent)
            selection = attrs.evolve(selection, transport=reporting)
        selected = {"default": selection}
        with self._override_lock:
            self._overrides.append(selected)
            self._selected = selected
        try:
            yield
        finally:
            with self._override_lock:
                self._overrides = [one for one in self._overrides if one is not selected]
                self._selected = self._overrides[-1]

    def _selection(self, api_name: str) -> _Selection:
        selected = self._selected  # one value, because another thread may replace it
        if api_name not in selected:
            default = selected.get("default") or _select_for_api(self._config, "default")
            selected[api_name] = default
        return selected[api_name]

    def _key_of_api(self, api_name: str) -> str:
        # Each event that is fired looks this up, so it avoids a call if it can.
        try:
            return self._selected[api_name].key
        except KeyError:
            return self._selection(api_name).key

    def _new_transport(self, api_name: str) -> EventTransport:
        selection = self._selection(api_name)
        client_name = f"{self._config.service_name}/{self._config.process_name()}"
        return selection.transport(selection.settings, client_name=client_name)


def _reporting(
    transport: type[EventTransport], on_sent: Callable[[EventMessage], object]
) -> type[EventTransport]:
    """Return a subclass of `transport` that calls `on_sent` with each event that it has sent."""

    async def send(self: Any, message: EventMessage, **options: Any) -> None:
        await transport.send(self, message, **options)
        on_sent(message)

    return type(transport.__name__, (transport,), {"send": send})


def _select_all(config: Config) -> dict[str, _Selection]:
    selected = {}
    for api_name, api_config in config.apis.items():
        try:
            selected[api_name] = _select_for_api(config, api_name)
        except ConfigError:
            # The built-in default raises an error only for an API that uses it.
            is_built_in = api_name == "default" and api_config.event_transport == {
                DEFAULT_TRANSPORT: None
            }
            if not is_built_in or len(config.apis) == 1:
                raise
    return selected


def _select_for_api(config: Config, api_name: str) -> _Selection:
    event_transport = config.apis[api_name].event_transport
    return _select(event_transport, f"$.apis.{api_name}", config.source)


def _select(event_transport: TransportSettings, path: str, source: str) -> _Selection:
    ((name, settings),) = event_transport.items()
    transport = find_transport(name)
    return _Selection(
        name=name,
        transport=transport,
        settings=convert_settings(
            settings or {},
            transport.Settings,
            source=source,
            path=f"{path}.event_transport.{name}",
        ),
        key=f"{name} {msgspec.json.encode(settings or {}, order='sorted').decode()}",
    )
