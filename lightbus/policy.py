"""`OnError` and `Retry`: what a failure means, and when an event is tried again."""

from __future__ import annotations

import enum
import random
from functools import cached_property
from typing import Annotated

import msgspec


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
            grows with each attempt; see `Retry`. Recommended for production.
    """

    SHUTDOWN = "shutdown"
    ACKNOWLEDGE_AND_LOG = "acknowledge_and_log"
    RETRY = "retry"


# The waits are spread by these factors, so that events which failed at one time do not come back at
# one time. They are few, because a broker prepares each wait that there can be.
_SPREAD = (0.8, 1.0, 1.2)

_MOST_STEPS = 20

# A year is more than any broker need count, and infinity is not.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]
_Factor = Annotated[float, msgspec.Meta(ge=1)]


class Retry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Waits that grow from one attempt to the next, up to a limit.

    Attributes:
        first: Before the second attempt, in seconds; more than 0.
        factor: How many times longer each wait is than the one before; 1 or more.
        longest: The limit, in seconds. Each wait is then made up to 20 % shorter or longer, by
            chance.

    Raises:
        ValueError: The limit is below the first wait, or there are more than 20 waits up to it. Of
            a configuration, that is an `InvalidConfig`.
    """

    first: Seconds = 1.0
    factor: _Factor = 3.0
    longest: Seconds = 300.0

    def __post_init__(self) -> None:
        if self.longest < self.first:
            raise ValueError(f"`longest` is {self.longest:g} s, less than `first`")
        if len(self._steps) > _MOST_STEPS:
            raise ValueError(
                f"there are more than {_MOST_STEPS} waits from {self.first:g} s to "
                f"{self.longest:g} s with a factor of {self.factor:g}; make it larger"
            )

    @property
    def delays(self) -> frozenset[float]:
        """Every wait that there can be, in seconds."""
        return frozenset(_spread(step, factor) for step in self._steps for factor in _SPREAD)

    def after(self, attempt: int) -> float:
        """Return how long to wait after that attempt, counted from 1, has failed, in seconds."""
        step = self._steps[min(attempt, len(self._steps)) - 1]
        return _spread(step, random.choice(_SPREAD))

    @cached_property
    def _steps(self) -> tuple[float, ...]:
        steps = [self.first]
        while self.factor > 1 and steps[-1] < self.longest and len(steps) <= _MOST_STEPS:
            steps.append(min(steps[-1] * self.factor, self.longest))
        return tuple(steps)


def _spread(step: float, factor: float) -> float:
    # Brokers count in milliseconds.
    return max(round(step * factor, 3), 0.001)
