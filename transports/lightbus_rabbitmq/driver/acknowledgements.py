"""`Acknowledgements`: which deliveries of a channel were acknowledged, and which were settled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from pamqp.commands import Basic


class Acknowledgements:
    """The deliveries of one channel, by their delivery tags.

    Attributes:
        pending: Deliveries that are acknowledged and not yet written.
        settled_at: When a delivery was last settled, by the clock of the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.pending: set[int] = set()
        self.settled_at = 0.0
        # Every delivery up to this tag is settled, and so are these later ones.
        self._settled_up_to = 0
        self._settled: set[int] = set()

    def add_settled(self, tag: int) -> None:
        """Add a delivery whose settlement is written."""
        self._settled.add(tag)
        self.settled_at = self._loop.time()

    def unsettled_between(self, first: int, last: int) -> int:
        """Return how many deliveries after `first` and up to `last` are not settled."""
        first = max(first, self._settled_up_to)
        return last - first - sum(tag > first for tag in self._settled)

    def methods(self) -> Iterator[Basic.Ack]:
        """Yield the methods that acknowledge the pending deliveries, as few as possible."""
        pending, self.pending = self.pending, set()
        last = 0
        while (tag := self._settled_up_to + 1) in pending or tag in self._settled:
            if tag in pending:
                pending.discard(tag)
                last = tag
            self._settled.discard(tag)
            self._settled_up_to = tag
        if last:
            self.settled_at = self._loop.time()
            # Deliveries in between that were requeued or rejected are settled already.
            yield Basic.Ack(delivery_tag=last, multiple=True)
        for tag in pending:
            self.add_settled(tag)
            yield Basic.Ack(delivery_tag=tag)
