"""`lightbus dead-letters replay --edit`: parameters that are corrected before a replay."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.cli.dead_letters.support import EDITOR, Run, add_dead_letter, left, waiting_for
from lightbus import Bus


async def test_parameters_can_be_edited_before_a_replay(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    message = await add_dead_letter(bus)
    (tmp_path / "editor.py").write_text(EDITOR.format(old='"ann"', new='"Ann"'))

    code, _, _ = dead_letters(
        "replay", "--edit", message.id, EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}"
    )

    assert code == 0
    assert await waiting_for(bus, "welcome") == [({"username": "Ann", "email": "e"}, 1)]
    assert await left(bus) == []


async def test_a_dead_letter_stays_if_the_edited_text_is_not_json(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    message = await add_dead_letter(bus)
    (tmp_path / "editor.py").write_text(EDITOR.format(old="{", new=""))

    _, _, stderr = dead_letters(
        "replay",
        "--edit",
        message.id,
        given="n\n",
        EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}",
    )

    assert "Replayed 0 of 1 dead letter." in stderr
    assert await left(bus) == [message.id]


EDITS = {
    "a missing editor": ("no-such-editor", "no-such-editor: Editing failed"),
    "an editor that fails": ("false", "false: Editing failed"),
    "no name of an editor": ("'", "Cannot parse the name of the editor"),
}


@pytest.mark.parametrize(("editor", "problem"), EDITS.values(), ids=list(EDITS))
async def test_a_dead_letter_stays_if_the_editor_cannot_run(
    bus: Bus, dead_letters: Run, editor: str, problem: str
) -> None:
    message = await add_dead_letter(bus)

    code, _, said = dead_letters("replay", "--edit", message.id, EDITOR=editor)

    assert code == 1
    assert problem in said
    assert "The dead letter is unchanged." in said
    assert await left(bus) == [message.id]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (b'{"username": "\xfcnn"}', "The edited text is not UTF-8"),
        (b'{"username": 1, "username": 2}', "The key 'username' is a duplicate."),
    ],
)
async def test_an_invalid_edit_can_be_corrected(
    bus: Bus, dead_letters: Run, tmp_path: Path, edit: bytes, problem: str
) -> None:
    message = await add_dead_letter(bus)
    # The second time, the editor has what was written the first time.
    (tmp_path / "editor.py").write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        f"right = file.read_bytes() == {edit!r}\n"
        f"""file.write_bytes(b'{{"username": "Ann"}}' if right else {edit!r})\n"""
    )

    code, _, said = dead_letters(
        "replay",
        "--edit",
        message.id,
        given="y\n",
        EDITOR=f"{sys.executable} {tmp_path / 'editor.py'}",
    )

    assert (code, problem in said) == (0, True)
    assert await waiting_for(bus, "welcome") == [({"username": "Ann"}, 1)]
