"""`Listener`: one handler of some events, under a name."""

from __future__ import annotations

import attrs

from lightbus.handling.signatures import Handler
from lightbus.policy import OnError, Retry
from lightbus.transport.records import Subscription


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
