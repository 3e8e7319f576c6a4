"""`OnError` and `Retry`: what happens when a handler fails, and when an event is retried."""

from __future__ import annotations

import enum
import random
from functools import cached_property
from typing import Annotated

import msgspec


class OnError(enum.Enum):
    """What happens when a handler fails.

    Whatever the member, an event becomes a dead letter when the last of its `max_attempts` fails,
    and the worker continues.

    Attributes:
        SHUTDOWN: The worker finishes its other handlers and exits. The event is retried after
            `acknowledgement_timeout` seconds. Until a worker is started again, the events of all
            its listeners wait.
        ACKNOWLEDGE_AND_LOG: The error is logged, the event becomes a dead letter, and the worker
            continues.
        RETRY: The error is logged, and the worker continues. The event is retried after a delay
            that grows with each attempt; see `Retry`. Recommended for production.
    """

    SHUTDOWN = "shutdown"
    ACKNOWLEDGE_AND_LOG = "acknowledge_and_log"
    RETRY = "retry"


# Each delay is multiplied by one of these factors, so that events that failed at the same time are
# not all retried at the same time. There are few factors, because a transport prepares each delay.
_JITTER = (0.8, 1.0, 1.2)

_MAX_STEPS = 20

# At most a year, because brokers do not support longer delays, or infinity.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]
_Factor = Annotated[float, msgspec.Meta(ge=1)]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Delays that grow with each attempt, up to a limit.

    Attributes:
        first: The delay before the second attempt, in seconds; more than 0.
        factor: How many times longer each delay is than the previous one; 1 or more.
        longest: The longest delay, in seconds. A random jitter of up to 20 % is added to or
            subtracted from each delay.

    Raises:
        ValueError: `longest` is less than `first`, or it takes more than 20 steps to reach it.
            `ConfigError` if the values are from a configuration.
    """

    first: Seconds = 1.0
    factor: _Factor = 3.0
    longest: Seconds = 300.0

    def __post_init__(self) -> None:
        if self.longest < self.first:
            raise ValueError(f"`longest` is {self.longest:g} s, less than `first`")
        if len(self._steps) > _MAX_STEPS:
            raise ValueError(
                f"there are more than {_MAX_STEPS} waits from {self.first:g} s to "
                f"{self.longest:g} s with a factor of {self.factor:g}; make it larger"
            )

    @property
    def delays(self) -> frozenset[float]:
        """All possible delays, in seconds."""
        return frozenset(_add_jitter(step, factor) for step in self._steps for factor in _JITTER)

    def delay_after(self, attempt: int) -> float:
        """Return the delay after a failed attempt, in seconds. The first attempt is 1."""
        step = self._steps[min(attempt, len(self._steps)) - 1]
        return _add_jitter(step, random.choice(_JITTER))

    @cached_property
    def _steps(self) -> tuple[float, ...]:
        steps = [self.first]
        while self.factor > 1 and steps[-1] < self.longest and len(steps) <= _MAX_STEPS:
            steps.append(min(steps[-1] * self.factor, self.longest))
        return tuple(steps)


def _add_jitter(step: float, factor: float) -> float:
    # Rounded, because brokers count in milliseconds.
    return max(round(step * factor, 3), 0.001)
