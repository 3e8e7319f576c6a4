"""`Listener`: a named handler of events, with its options."""

from __future__ import annotations

import attrs

from lightbus.handling.signatures import Handler
from lightbus.policy import OnError, Retry
from lightbus.transport.records import Subscription


@attrs.frozen(kw_only=True, eq=False)
class Listener:
    """A named handler of events of one API.

    Attributes:
        name: The name, which is unique among the listeners of a service on an API.
        handler: The function to call.
        api_name: The name of the API.
        events: The names of the events.
        on_error: What happens when the handler fails.
        acknowledgement_timeout: The time limit of the handler, and the delay before a failed event
            is retried, in seconds.
        retry: The delays before retries, with `OnError.RETRY`.
        max_attempts: The number of attempts before an event becomes a dead letter.
        concurrency: The number of events that are handled at the same time. With more than one,
            events may be handled out of order.
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
        """Return the subscription of this listener, for a transport."""
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
        # After lost workers, an event is delayed by the timeout, whatever `on_error` is.
        delays = frozenset({self.acknowledgement_timeout})
        return delays | self.retry.delays if self.on_error is OnError.RETRY else delays
