"""docs/dead-letters.rst, run."""

from __future__ import annotations

import json

import pytest

import lightbus
from docs.conftest import Shell
from docs.pages import Page, Program

PAGE = Page("dead-letters")


@pytest.fixture
def dead(shell: Shell) -> str:
    """The id of an event that a listener gave up."""
    return shell.fire_and_fail()


def test_dead_letters_are_listed_and_shown(shell: Shell, dead: str) -> None:
    listed, grouped, show = PAGE.block("dead-letters show").splitlines()

    assert dead[:8] in shell.run(listed)
    assert "KeyError" in shell.run(grouped)
    assert "Traceback" in shell.run(show.replace("3fb31261", dead[:8]))


@pytest.mark.parametrize("which", ["3fb31261", "--error KeyError", "--all"])
def test_dead_letters_are_replayed(shell: Shell, dead: str, which: str) -> None:
    (command,) = (
        line for line in PAGE.block("dead-letters replay").splitlines() if line.endswith(which)
    )

    shell.run(command.replace("3fb31261", dead[:8]))

    (welcome, audit) = json.loads(shell.run("lightbus status --format json"))
    assert (welcome["waiting"], audit["waiting"], audit["dead"]) == (0, 1, 0)


def test_old_dead_letters_are_exported_and_discarded(shell: Shell, dead: str) -> None:
    block = PAGE.block("dead-letters export")
    export, discard = block.replace("2026-01-01", "2126-01-01").splitlines()

    shell.run(export)
    shell.run(f"yes | {discard}")

    (line,) = (shell.folder / "old.jsonl").read_text().splitlines()
    assert dead in line
    assert dead[:8] not in shell.run("lightbus dead-letters list")


async def test_a_program_reads_and_replays_dead_letters(
    shell: Shell, dead: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shell.folder / ".local" / "state" / "lightbus" / "events.db"
    config = {"apis": {"auth": {"event_transport": {"sqlite": {"path": str(path)}}}}}
    bus = lightbus.create(config, service_name="shop")

    await Program(monkeypatch, bus=bus).run(f"import contextlib\n{PAGE.block('DeadLetters, ')}")
    await bus.client.close_async()

    assert capsys.readouterr().out == f"{dead} 'name'\n"
