"""`Listener` and `OnError`: who handles what, and what a failure means."""

from __future__ import annotations

import enum

import attrs

from lightbus.handler import Handler
from lightbus.retry import Retry
from lightbus.transport import Subscription


class OnError(enum.Enum):
    """What happens when a handler fails.

    With each of them, an event becomes a dead letter when the last of its `max_attempts` fails, and
    the worker goes on.

    Attributes:
        SHUTDOWN: The event is retried after `acknowledgement_timeout` seconds, and the worker exits
            when its other handlers are done. All of its listeners wait for the restart.
        ACKNOWLEDGE_AND_LOG: The error is logged, a copy of the event is kept as a dead letter, and
            the worker goes on.
        RETRY: The error is logged, and the worker goes on. The event is retried after a delay that
            grows with each attempt; see `lightbus.retry.Retry`. Recommended for production.
    """

    SHUTDOWN = "shutdown"
    ACKNOWLEDGE_AND_LOG = "acknowledge_and_log"
    RETRY = "retry"


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
        retry: The waits before each next try, with `OnError.RETRY`.
        max_attempts: How often an event is tried before it becomes a dead letter.
        concurrency: How many events are handled at once; more than one gives up their order.
    """

    name: str
    handler: Handler
    api_name: str
    events: frozenset[str]
    on_error: OnError
    acknowledgement_timeout: float
    retry: Retry
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
            delays=self._delays,
        )

    @property
    def _delays(self) -> frozenset[float]:
        # An event whose workers were lost waits for the timeout, whatever `on_error` is.
        delays = frozenset({self.acknowledgement_timeout})
        return delays | self.retry.delays if self.on_error is OnError.RETRY else delays
