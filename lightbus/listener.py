"""`Listener` and `OnError`: who handles what, and what a failure means."""

from __future__ import annotations

import enum

import attrs

from lightbus.handler import Handler
from lightbus.transport import Subscription


class OnError(enum.Enum):
    """What happens when a handler fails.

    Attributes:
        SHUTDOWN: The event is tried again after `acknowledgement_timeout`, and the worker exits
            once its other handlers are done.
        ACKNOWLEDGE_AND_LOG: The error is logged, a copy of the event is kept as a dead letter, and
            the worker goes on.
    """

    SHUTDOWN = "shutdown"
    ACKNOWLEDGE_AND_LOG = "acknowledge_and_log"


@attrs.frozen(kw_only=True, eq=False)
class Listener:
    """One handler of some events of one API, under a name.

    Attributes:
        name: Listeners of one service on one API differ in it.
        handler: What is called.
        api_name: The API.
        events: Names of the API's events.
        on_error: What a failure means.
        acknowledgement_timeout: How long the handler may take, and the wait before a failed
            event is tried again, in seconds.
        max_attempts: How often an event is tried before it becomes a dead letter.
        concurrency: How many events are handled at once; more than one gives up their order.
    """

    name: str
    handler: Handler
    api_name: str
    events: frozenset[str]
    on_error: OnError
    acknowledgement_timeout: float
    max_attempts: int
    concurrency: int

    def subscription(self, service_name: str) -> Subscription:
        """Return what this listener wants of a transport."""
        return Subscription(
            service_name=service_name,
            listener_name=self.name,
            api_name=self.api_name,
            events=self.events,
            concurrency=self.concurrency,
            acknowledgement_timeout=self.acknowledgement_timeout,
            delays=frozenset({self.acknowledgement_timeout}),
        )
