"""`lightbus dead-letters discard`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from command import Command, ended, wait_until_reading
from core.cli.dead_letters.support import Run, add_dead_letter, left
from lightbus import Bus


async def test_ctrl_c_ends_a_question(bus: Bus, command: Command) -> None:
    message = await add_dead_letter(bus)

    process = command.start("dead-letters", "discard", "--all")
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("[y/N]: "):
        asked += await asyncio.to_thread(process.stderr.read, 1)
    await wait_until_reading(process)
    process.send_signal(signal.SIGINT)

    assert await asyncio.to_thread(process.wait, 10) == 1
    assert await left(bus) == [message.id]


async def test_only_the_exported_dead_letters_of_a_file_are_discarded(
    bus: Bus, dead_letters: Run, tmp_path: Path
) -> None:
    exported = await add_dead_letter(bus)
    file = tmp_path / "old.jsonl"
    assert dead_letters("export", "-o", str(file))[0] == 0
    # They have the same time as those that were exported, and one has the same event.
    later = await add_dead_letter(bus)
    other_listener = await add_dead_letter(bus, message=exported, listener="audit")

    code, _, said = dead_letters("discard", "--exported", str(file), "--yes")

    assert (code, said.splitlines()[-1]) == (0, "Discarded 1 dead letter.")
    assert await left(bus) == [later.id, other_listener.id]


def test_a_file_that_is_not_an_export_is_refused(dead_letters: Run, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text('{"id": "3fb31261"}\n')

    code, _, said = dead_letters("discard", "--exported", str(file), "--yes")

    assert code == 2
    assert "is not an exported dead letter." in said


async def test_a_dead_letter_that_is_added_during_the_question_is_not_discarded(
    bus: Bus, command: Command
) -> None:
    await add_dead_letter(bus)
    process = command.start("dead-letters", "discard", "--until", "2030-01-01")
    assert process.stderr is not None
    asked = ""
    while not asked.endswith("[y/N]: "):
        asked += await asyncio.to_thread(process.stderr.read, 1)
    later = await add_dead_letter(bus)

    code, _, said = ended(process, given="y\n")

    assert code == 0
    assert said.splitlines()[-1] == "Discarded 1 dead letter."
    assert await left(bus) == [later.id]


async def test_an_id_that_is_too_short_selects_nothing(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)

    assert "Discarded 0 dead letters." in dead_letters("discard", "--yes", message.id[:7])[2]
    assert await left(bus) == [message.id]


async def test_a_dead_letter_is_discarded_after_a_confirmation(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)
    other = await add_dead_letter(bus)

    refused, _, asked = dead_letters("discard", message.id, given="n\n")
    assert (refused, "Permanently delete 1 dead letter?" in asked) == (1, True)
    assert len(await left(bus)) == 2

    assert dead_letters("discard", message.id, given="y\n")[0] == 0
    assert await left(bus) == [other.id]
    assert dead_letters("discard", "--all", "--yes")[0] == 0
    assert await left(bus) == []
