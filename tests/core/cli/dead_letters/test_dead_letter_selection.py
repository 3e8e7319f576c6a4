"""The options that select dead letters."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from core.cli.dead_letters.support import Run, add_dead_letter, left
from lightbus import Bus


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--listener", "count"], ["b"]),
        (["--event", "auth.user_deleted"], ["c"]),
        (["--event", "auth.*_created"], ["a", "b", "d"]),
        (["--error", "KeyError"], ["d"]),
        (["--error", "builtins.KeyError"], ["d"]),
        (["--error", "*Error"], ["a", "b", "c", "d"]),
        (["--since", "{30 minutes ago}"], ["a", "b", "c"]),
        (["--until", "{30 minutes ago}"], ["d"]),
        (["--listener", "welcome", "--error", "LookupError"], ["a", "c"]),
        (["--listener", "nobody"], []),
    ],
)
async def test_filters_select_dead_letters(
    bus: Bus, dead_letters: Run, filters: list[str], found: list[str]
) -> None:
    await add_dead_letter(bus, "a")
    await add_dead_letter(bus, "b", listener="count")
    await add_dead_letter(bus, "c", event_name="user_deleted")
    await add_dead_letter(bus, "d", error=KeyError("d"), minutes_ago=60)
    then = (datetime.now(UTC) - timedelta(minutes=30)).isoformat()
    arguments = [part.replace("{30 minutes ago}", then) for part in filters]

    _, shown, _ = dead_letters("export", *arguments)

    assert [json.loads(line)["parameters"]["username"] for line in shown.splitlines()] == found


@pytest.mark.parametrize("arguments", [["replay"], ["discard", "--yes"]], ids=" ".join)
async def test_an_unknown_id_is_named_and_the_others_are_processed(
    bus: Bus, dead_letters: Run, arguments: list[str]
) -> None:
    message = await add_dead_letter(bus)

    code, _, said = dead_letters(*arguments, message.id, "deadbeef")

    assert code == 1
    assert "No dead letter has the ID deadbeef." in said
    assert await left(bus) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list", "--since", "yesterday"], "is not an ISO 8601 time"),
        (["discard"], "Select dead letters: give IDs, filter options or --all."),
        (["list", "-b", "no_such_module"], "was not found"),
        (["list", "--config", "no-such.yaml"], "cannot be read"),
    ],
)
def test_a_wrong_option_is_refused_with_one_line(
    dead_letters: Run, arguments: list[str], expected: str
) -> None:
    code, _, said = dead_letters(*arguments)

    assert (code, expected in said) == (2, True), said
