"""`Publisher`: checks events and sends them through hooks, middleware and a transport."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from lightbus.api import ApiRegistry
from lightbus.config import Config
from lightbus.handling.hooks import Hooks
from lightbus.handling.listener_registry import ListenerRegistry
from lightbus.handling.middleware import Middleware, send_through
from lightbus.log import get_logger
from lightbus.message import EventMessage
from lightbus.schema.files import LoadedSchemas
from lightbus.transport.configured import ConfiguredTransports
from lightbus.transport.pool import asyncio_loop

_log = get_logger(__name__)


class Publisher:
    """Sends the events that a bus fires.

    Args:
        config: Has each API's settings for firing.
        apis: The APIs whose events can be fired.
        schema: The schema files that fired events must match.
        listeners: Their queues are declared before the first event is sent to them.
        transports: Send the events.
        middleware: Runs around the sending of each event, the first outermost.
        before_event_sent: Hooks called inside the middleware, before an event is sent.
        after_event_sent: Hooks called after the broker has confirmed an event.
    """

    def __init__(
        self,
        config: Config,
        *,
        apis: ApiRegistry,
        schema: LoadedSchemas,
        listeners: ListenerRegistry,
        transports: ConfiguredTransports,
        middleware: Sequence[Middleware],
        before_event_sent: Hooks,
        after_event_sent: Hooks,
    ) -> None:
        self._config = config
        self._apis = apis
        self._schema = schema
        self._subscriptions = listeners.subscriptions
        self._transports = transports
        self._middleware = middleware
        self._before_event_sent = before_event_sent
        self._after_event_sent = after_event_sent

    def message(
        self,
        api_name: str,
        event_name: str,
        kwargs: Mapping[str, Any],
        args: tuple[Any, ...] = (),
    ) -> EventMessage:
        """Check the arguments of an event and return the message that carries them.

        Args:
            kwargs: The arguments of the event, by name.
            args: Arguments by position, for events that accept them.

        Raises:
            EventNotFound: The API is not registered on this bus, or has no such event.
            InvalidEventArguments: Arguments are missing, do not belong to the event, have wrong
                values, or are positional where the event does not accept that.
            UnencodableValue: An argument cannot be encoded as JSON.
        """
        api = self._apis.api(api_name)
        event = api.event(event_name)
        canonical_name = f"{api_name}.{event_name}"
        if args:
            kwargs = event.with_names(canonical_name, args, kwargs)
        message = EventMessage.create(
            api_name,
            event_name,
            event.arguments(canonical_name, kwargs),
            version=api.meta.version,
            service_name=self._config.service_name,
        )
        if event.decoder is not None and self._config.api(api_name).validate:
            event.check_values(canonical_name, message.body)
        if self._schema:
            self._schema.check(canonical_name, message.kwargs)
        return message

    def fire(self, message: EventMessage) -> EventMessage:
        """Send `message` and wait until the broker has confirmed it.

        The result and the errors are those of `BusClient.fire`.
        """
        return self._transports.call_blocking(
            self.fire_async, message, blocking="fire()", instead="`await ....fire_async(...)`"
        )

    async def fire_async(self, message: EventMessage) -> EventMessage:
        """Send `message` on the running event loop.

        The result and the errors are those of `BusClient.fire_async`.
        """
        if not self._middleware:
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
            await send_through(self._middleware, message, send)
        except Exception:
            if not is_stored:
                raise
            # If the error were raised, the caller would fire the event again.
            _log.exception("Middleware failed after the event was stored.", event_id=sent.id)
        return sent

    async def _send(self, message: EventMessage) -> None:
        if self._before_event_sent:
            asyncio_loop("fire_async()")
            await self._before_event_sent.run(event_message=message)
        api_config = self._config.api(message.api_name)
        timeout = api_config.fire_timeout
        opened = self._transports.transport(message.api_name)
        # An event that is fired after listen() must reach that listener, even if no worker has
        # started yet.
        subscriptions = self._subscriptions.get((message.api_name, message.event_name), ())
        if not opened.is_ready_for(subscriptions):
            now = asyncio.get_running_loop().time
            deadline = now() + timeout
            await opened.opened(timeout=timeout)
            for subscription in subscriptions:
                await opened.declare(subscription, timeout=deadline - now())
            timeout = deadline - now()
        await opened.transport.send(
            message, timeout=timeout, require_listeners=api_config.require_listeners
        )
        if self._after_event_sent:
            await self._run_after_event_sent(message)

    async def _run_after_event_sent(self, message: EventMessage) -> None:
        try:
            await self._after_event_sent.run(event_message=message)
        except Exception:
            # The event is stored. If the error were raised, the caller would fire it again.
            _log.exception(
                "An after_event_sent hook failed after the event was stored.",
                event_id=message.id,
                api=message.api_name,
                event_name=message.event_name,
            )
