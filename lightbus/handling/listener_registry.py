"""`ListenerRegistry`: the listeners of a bus, checked when they are added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

from lightbus.config import Config
from lightbus.exceptions import DuplicateListenerName, InvalidEventListener
from lightbus.handling.calling import name_of
from lightbus.handling.listener import Listener
from lightbus.handling.registry import Registry
from lightbus.handling.signatures import CallPlan, Handler, plan_call
from lightbus.log import get_logger
from lightbus.names import check_name
from lightbus.policy import OnError
from lightbus.transport.records import Subscription

_log = get_logger(__name__)

# The fields of an event, given the names of its API and its own; None if they are unknown.
FieldNames = Callable[[str, str], tuple[str, ...] | None]


class ListenerOptions(TypedDict, total=False):
    """The options of a listener, as `BusPath.listen` describes them."""

    listener_name: str | None
    on_error: OnError | None
    concurrency: int


class ListenerRegistry(Registry[Listener]):
    """The listeners of a bus.

    Args:
        config: Has the defaults of each API's listeners.
        field_names: Returns the names of an event's fields.
    """

    def __init__(self, config: Config, field_names: FieldNames) -> None:
        super().__init__()
        self._config = config
        self._field_names = field_names
        self._subscriptions: defaultdict[tuple[str, str], list[Subscription]] = defaultdict(list)

    @property
    def subscriptions(self) -> Mapping[tuple[str, str], list[Subscription]]:
        """The subscriptions to each event that has listeners, by API name and event name."""
        return self._subscriptions

    def add(
        self,
        events: Iterable[tuple[str, str]],
        handler: Handler,
        *,
        listener_name: str | None = None,
        on_error: OnError | None = None,
        concurrency: int = 1,
    ) -> None:
        """Add one listener for each API that `events` name.

        The errors are those of `BusClient.listen_for_events`. If one is raised, nothing is added.
        """
        _check_options(handler, on_error, concurrency)
        name = _listener_name(handler, listener_name)
        events_by_api: defaultdict[str, set[str]] = defaultdict(set)
        for api_name, event_name in _pairs(events, name):
            events_by_api[check_name("API", api_name)].add(check_name("event", event_name))
            self._warn_about_unsupported_hints(name, handler, api_name, event_name)
        for listener in self:
            if listener.name == name and listener.api_name in events_by_api:
                raise DuplicateListenerName(name, listener.api_name)
        for api_name, event_names in events_by_api.items():
            api_config = self._config.api(api_name)
            listener = Listener(
                name=name,
                handler=handler,
                api_name=api_name,
                events=frozenset(event_names),
                on_error=OnError(api_config.on_error) if on_error is None else on_error,
                acknowledgement_timeout=api_config.acknowledgement_timeout,
                retry=api_config.retry,
                max_attempts=api_config.max_attempts,
                concurrency=concurrency,
            )
            self._add(listener)

    def _add(self, item: Listener) -> None:
        subscription = item.subscription(self._config.service_name)
        for event_name in item.events:
            self._subscriptions[item.api_name, event_name].append(subscription)
        super()._add(item)

    def plan_call(self, handler: Handler, api_name: str, event_name: str) -> CallPlan:
        """Return how `handler` is called for an event.

        Raises:
            InvalidEventListener: `handler` cannot be called for the event.
            EventNotFound: The API is registered and has no such event.
        """
        return plan_call(
            handler,
            f"{api_name}.{event_name}",
            self._field_names(api_name, event_name),
            cast_mode=self._config.api(api_name).cast_mode,
        )

    def _warn_about_unsupported_hints(
        self, listener_name: str, handler: Handler, api_name: str, event_name: str
    ) -> None:
        plan = self.plan_call(handler, api_name, event_name)
        for part in plan.decoder.unsupported:
            _log.warning(
                "Listener: a type hint is not supported; the handler receives the JSON value.",
                listener=listener_name,
                api=api_name,
                event_name=event_name,
                path=part.path,
                reason=part.reason,
            )


def _check_options(handler: Handler, on_error: OnError | None, concurrency: int) -> None:
    if not callable(handler):
        raise InvalidEventListener(f"{handler!r} cannot listen for events: it is not callable.")
    if not isinstance(on_error, OnError | None):
        raise InvalidEventListener(f"on_error is {on_error!r}; pass a member of lightbus.OnError.")
    if not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidEventListener(f"concurrency is {concurrency!r}; pass 1 or more.")


def _listener_name(handler: Handler, explicit_name: str | None) -> str:
    if explicit_name is not None:
        return check_name("listener", explicit_name)
    name = check_name("listener", name_of(handler))
    _log.warning(
        "Listener: no listener_name given, so the function's name names the durable queue. Pass "
        "listener_name to keep the queue when you rename the function.",
        listener=name,
    )
    return name


def _pairs(events: Iterable[tuple[str, str]], listener_name: str) -> list[tuple[str, str]]:
    try:
        pairs = [(api_name, event_name) for api_name, event_name in events]
    except (TypeError, ValueError) as error:
        raise InvalidEventListener(
            f"Listener {listener_name!r} needs its events as pairs of names, such as "
            f"[('auth', 'user_created')]; got {events!r}."
        ) from error
    if not pairs:
        raise InvalidEventListener(f"Listener {listener_name!r} has no events to listen for.")
    return pairs
