"""The delays between attempts grow, and start again after a success that lasts."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from lightbus_rabbitmq.driver.backoff import ReconnectBackoff


def test_delays_grow_while_a_resource_is_lost_at_once() -> None:
    backoff = ReconnectBackoff()
    waits = []
    for _ in range(6):
        backoff.note_success()
        waits.append(backoff.after_loss())

    assert all(shorter <= longer for shorter, longer in pairwise(waits))
    assert waits[-1] > 8 * waits[0]


def test_delays_start_again_after_a_resource_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = ReconnectBackoff()
    grown = [backoff.after_failure() for _ in range(6)][-1]
    backoff.note_success()
    later = time.monotonic() + 2 * grown
    monkeypatch.setattr(time, "monotonic", lambda: later)

    assert backoff.after_loss() == 0
    assert backoff.after_failure() <= 0.2
