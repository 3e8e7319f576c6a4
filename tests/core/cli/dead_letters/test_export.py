"""`lightbus dead-letters export`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from core.cli.dead_letters.support import Run, add_dead_letter
from lightbus import Bus


async def test_an_export_contains_all_data_of_a_dead_letter(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    message = await add_dead_letter(bus)

    assert dead_letters("export", "-o", "letters.jsonl")[0] == 0

    letter = json.loads((tmp_path / "letters.jsonl").read_text())
    assert letter["parameters"] == {"username": "ann", "email": "e"}
    assert letter["traceback"] == "Traceback of ann [not markup]"
    assert (letter["id"], letter["process"], letter["service"]) == (message.id, "worker-1", "shop")


async def test_only_the_owner_may_read_a_new_export_file(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    await add_dead_letter(bus)
    existing = tmp_path / "existing.jsonl"
    existing.touch()
    existing.chmod(0o644)

    assert dead_letters("export", "-o", "letters.jsonl")[0] == 0
    assert dead_letters("export", "-o", "existing.jsonl")[0] == 0

    assert stat.S_IMODE((tmp_path / "letters.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(existing.stat().st_mode) == 0o644
