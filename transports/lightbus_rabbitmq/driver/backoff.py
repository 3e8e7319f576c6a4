"""`ReconnectBackoff`: the delays between attempts to acquire a connection or a consumer."""

from __future__ import annotations

import time

from lightbus.transport.kit import backoff

# A resource that is lost sooner than this, in seconds, is acquired again only after a delay.
_SHORTEST_LIFE = 1.0


class ReconnectBackoff:
    """The delays between attempts to acquire a resource, such as a connection.

    They grow with each failure, and also if the resource is lost again at once. They start again
    when it has lasted for longer than the last delay.
    """

    def __init__(self) -> None:
        self._delays = backoff()
        self._last_delay = 0.0
        self._acquired_at: float | None = None

    def note_success(self) -> None:
        """Note that the resource was just acquired."""
        self._acquired_at = time.monotonic()

    def after_failure(self) -> float:
        """Return how many seconds to wait after a failed attempt."""
        self._last_delay = next(self._delays)
        return self._last_delay

    def after_loss(self) -> float:
        """Return how many seconds to wait after the resource was lost; 0 if it had lasted."""
        acquired_at, self._acquired_at = self._acquired_at, None
        if acquired_at is None:
            return 0.0
        if time.monotonic() - acquired_at < max(_SHORTEST_LIFE, 2 * self._last_delay):
            return self.after_failure()
        self._delays, self._last_delay = backoff(), 0.0
        return 0.0
