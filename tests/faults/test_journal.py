"""Journals that are read while they are written."""

from __future__ import annotations

from pathlib import Path

from faults.journal import Reader


def test_a_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    journal = tmp_path / "journal-worker-1"
    reader = Reader(tmp_path)
    journal.write_bytes(b"1.0 fired a\n2.0 fir")

    assert [entry.event_id for entry in reader.news()] == ["a"]
    assert list(reader.news()) == []
    journal.write_bytes(b"1.0 fired a\n2.0 fired b\n")
    assert [(entry.at, entry.event_id) for entry in reader.news()] == [(2.0, "b")]
