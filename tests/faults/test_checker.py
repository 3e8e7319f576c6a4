"""The checker of the runs is itself checked: it must find what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.checker import REPAIR, Disruption, Ledger
from faults.journal import NAME_VARIABLE, Entry, Reader, Writer


def ledger(*lines: str) -> Ledger:
    """Return what lines such as ``"worker-1 10 handled a"`` add up to."""
    made = Ledger()
    for line in lines:
        process, at, what, event_id = line.split()
        made.add([Entry(process, float(at), what, event_id)])
    return made


FIRED = ("producer-1 1 firing a", "producer-1 2 fired a")


def test_a_handled_event_is_accounted_for() -> None:
    result = ledger(*FIRED, "worker-1 3 handled a").result(dead=[], disruptions=[])

    assert result.kept_the_promise
    assert (result.fired, result.duplicates) == (1, 0)


def test_an_event_that_was_fired_and_not_handled_is_lost() -> None:
    result = ledger(*FIRED).result(dead=[], disruptions=[])

    assert result.lost == 1
    assert not result.kept_the_promise


def test_a_dead_letter_is_not_lost() -> None:
    result = ledger(*FIRED).result(dead=["a"], disruptions=[])

    assert (result.lost, result.dead, result.kept_the_promise) == (0, 1, True)


@pytest.mark.parametrize("dead", [["a"], []], ids=["as a dead letter", "at a handler"])
def test_an_event_that_was_not_fired_breaks_the_promise(dead: list[str]) -> None:
    handled = () if dead else ("worker-1 3 handled a",)

    result = ledger(*handled).result(dead=dead, disruptions=[])

    assert result.unexpected == 1
    assert not result.kept_the_promise


def test_a_refused_event_must_not_be_handled() -> None:
    lines = ("producer-1 1 firing a", "producer-1 2 refused a", "worker-1 3 handled a")

    assert ledger(*lines).result(dead=[], disruptions=[]).unexpected == 1


def test_an_event_with_an_unknown_outcome_may_be_handled_or_not() -> None:
    lines = ("producer-1 1 firing a", "producer-1 2 firing b", "worker-1 3 handled a")

    result = ledger(*lines).result(dead=[], disruptions=[])

    assert (result.unknown, result.recovered, result.kept_the_promise) == (2, 1, True)


TWICE = (*FIRED, "worker-1 3 handled a", "worker-2 5 handled a")


@pytest.mark.parametrize(
    ("disruption", "unexplained"),
    [
        pytest.param(Disruption("kill", 4, 4, "worker-1"), 0, id="its worker killed"),
        pytest.param(Disruption("kill", 4, 4, "worker-3"), 1, id="another worker killed"),
        pytest.param(Disruption("cut", 4, 4), 0, id="a link cut"),
        pytest.param(Disruption("cut", 6, 6), 1, id="a link cut later"),
        pytest.param(Disruption("cut", 1, 3 - REPAIR), 0, id="a link cut earlier"),
        pytest.param(Disruption("cut", 1, 2.9 - REPAIR), 1, id="a link cut much earlier"),
    ],
)
def test_a_duplicate_is_explained_by_a_fault_at_its_time(
    disruption: Disruption, unexplained: int
) -> None:
    result = ledger(*TWICE).result(dead=[], disruptions=[disruption])

    assert (result.duplicates, result.unexplained) == (1, unexplained)
    assert result.kept_the_promise


def test_each_line_of_a_journal_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NAME_VARIABLE, "worker-1")
    writer, reader = Writer(), Reader(tmp_path)

    writer.write("handled", "a")
    first = [(entry.process, entry.what, entry.event_id) for entry in reader.news()]
    writer.write("handled", "b")
    second = [entry.event_id for entry in reader.news()]

    assert first == [("worker-1", "handled", "a")]
    assert second == ["b"]
    assert list(reader.news()) == []
