"""`lightbus dead-letters show`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from core.cli.dead_letters.support import EDITOR, Run, add_dead_letter
from lightbus import Bus


async def test_a_dead_letter_can_be_shown_as_json(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus, error=KeyError("user"))

    code, shown, _ = dead_letters("show", message.id[:8], "--format", "json")

    (letter,) = json.loads(shown)
    assert code == 0
    assert (letter["id"], letter["parameters"]) == (message.id, message.kwargs)
    assert letter["error_type"] == "builtins.KeyError"
    assert letter["traceback"].startswith("Traceback")


async def test_a_dead_letter_is_shown_with_its_parameters_and_its_failure(
    bus: Bus, dead_letters: Run
) -> None:
    message = await add_dead_letter(bus)

    code, shown, _ = dead_letters("show", message.id)

    assert code == 0
    for part in ('"username": "ann"', "Traceback of ann [not markup]", "worker-1", "no ann"):
        assert part in shown


async def test_a_body_that_is_not_json_is_shown_in_base64(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus, body=b"\xff\xfe")

    assert "//4=" in dead_letters("show", message.id)[1]
    assert json.loads(dead_letters("export")[1])["body_base64"] == "//4="


def test_an_unknown_id_is_an_error(dead_letters: Run) -> None:
    code, _, stderr = dead_letters("show", "no-such-id")

    assert (code, "No dead letter has the ID no-such-id." in stderr) == (1, True)


@pytest.mark.parametrize("depth", [300, 900, 980])
async def test_values_of_any_depth_are_shown_exported_and_edited(
    bus: Bus, dead_letters: Run, tmp_path: Path, depth: int
) -> None:
    body = b'{"deep":' + b"[" * depth + b"]" * depth + b"}"
    message = await add_dead_letter(bus, body=body)
    (tmp_path / "editor.py").write_text(EDITOR.format(old="deep", new="deeper"))

    for arguments in (["show", message.id], ["show", message.id, "--format", "json"], ["export"]):
        code, shown, error = dead_letters(*arguments)
        assert (code, error) == (0, "")
        assert message.id in shown
    code, _, said = dead_letters(
        "replay", "--edit", message.id, given="n\n", EDITOR=f"{sys.executable} {tmp_path}/editor.py"
    )
    assert code == 0, said
