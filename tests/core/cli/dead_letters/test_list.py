"""`lightbus dead-letters list`."""

from __future__ import annotations

import json

from command import Command, ended
from core.cli.dead_letters.support import Run, add_dead_letter
from lightbus import Bus


async def test_a_row_shows_the_listener_the_event_and_the_error(
    bus: Bus, dead_letters: Run
) -> None:
    message = await add_dead_letter(bus, error=KeyError("user\n [bold]name"))

    code, shown, _ = dead_letters("list")

    assert code == 0
    header, line = (line for line in shown.splitlines() if line.strip())
    assert header.split() == ["id", "failed", "at", "listener", "event", "attempts", "error"]
    for part in ("welcome", "auth.user_created", "3", "KeyError:", "[bold]name", message.id[:8]):
        assert part in line


async def test_80_columns_fit_a_whole_error_and_40_fit_the_id(bus: Bus, command: Command) -> None:
    message = await add_dead_letter(bus, error=KeyError("user"))

    code, shown, _ = command("dead-letters", "list", COLUMNS="80")
    assert code == 0
    assert message.id[:8] in shown
    assert "KeyError: 'user'" in shown

    code, shown, _ = command("dead-letters", "list", COLUMNS="40")
    assert code == 0
    assert message.id[:8] in shown
    assert max(map(len, shown.splitlines())) <= 40


async def test_characters_that_a_terminal_cannot_show_are_escaped(
    bus: Bus, command: Command
) -> None:
    await add_dead_letter(bus, error=KeyError("ü" * 200))

    code, shown, _ = ended(command.start("dead-letters", "list", PYTHONIOENCODING="ascii"))

    assert code == 0
    assert "\\xfc" in shown


async def test_control_characters_of_a_dead_letter_are_escaped(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(
        bus, "\x1b[2J", error=KeyError("\x1b]0;title\x07"), event_name="user\x1b[31m"
    )

    for arguments in (["list"], ["list", "--group-by", "event"], ["show", message.id]):
        code, shown, _ = dead_letters(*arguments)
        assert code == 0
        assert "\\x1b" in shown
        assert shown.replace("\n", "").isprintable()


def test_an_empty_list_prints_a_sentence(dead_letters: Run) -> None:
    assert dead_letters("list")[:2] == (0, "No dead letters.\n")
    assert dead_letters("list", "--format", "json")[:2] == (0, "[]\n")


async def test_the_list_can_be_printed_as_json(bus: Bus, dead_letters: Run) -> None:
    message = await add_dead_letter(bus)

    code, shown, _ = dead_letters("list", "--format", "json")

    (letter,) = json.loads(shown)
    assert code == 0
    assert letter.pop("first_failed_at") < letter.pop("failed_at")
    assert letter == {
        "id": message.id,
        "event": "auth.user_created",
        "listener": "welcome",
        "attempt": 3,
        "error_type": "builtins.LookupError",
        "error_message": "no ann",
    }


async def test_the_list_can_be_grouped(bus: Bus, dead_letters: Run) -> None:
    for number in range(3):
        await add_dead_letter(bus, str(number))
    await add_dead_letter(bus, error=KeyError("x"), listener="count")

    code, shown, _ = dead_letters("list", "--group-by", "error")
    _, as_json, _ = dead_letters("list", "--group-by", "listener", "--format", "json")

    assert code == 0
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    assert [line[:2] for line in lines] == [
        ["count", "error"],
        ["3", "builtins.LookupError"],
        ["1", "builtins.KeyError"],
    ]
    assert json.loads(as_json) == [
        {"listener": "welcome", "count": 3},
        {"listener": "count", "count": 1},
    ]


async def test_a_search_without_a_match_prints_a_sentence(bus: Bus, dead_letters: Run) -> None:
    await add_dead_letter(bus)
    assert dead_letters("list", "--error", "KeyEror")[1] == "No dead letters match.\n"
