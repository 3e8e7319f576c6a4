"""Attributes that are worked out when they are first read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from core.support import PATIENCE
from lightbus.concurrency.lazy import lazy_property


class Report:
    def __init__(self) -> None:
        self.made = 0
        self.is_made_by_another = threading.Event()

    @lazy_property
    def text(self) -> str:
        """What it says."""
        self.made += 1
        return f"text {self.made}"

    @lazy_property
    def slow(self) -> bool:
        return self.is_made_by_another.wait(PATIENCE)


def test_a_lazy_property_is_computed_once_for_each_instance() -> None:
    one, other = Report(), Report()

    assert (one.text, one.text, other.text) == ("text 1", "text 1", "text 1")
    assert one.made == 1
    assert Report.text.__doc__ == "What it says."


def test_one_thread_does_not_wait_for_another_that_computes_it() -> None:
    slow, quick = Report(), Report()
    quick.is_made_by_another.set()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: slow.slow)
        assert quick.slow
        slow.is_made_by_another.set()
        assert waiting.result(PATIENCE)
