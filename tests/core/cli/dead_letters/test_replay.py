"""`lightbus dead-letters replay`."""

from __future__ import annotations

from core.cli.dead_letters.support import Run, add_dead_letter, left, waiting_for
from lightbus import Bus


async def test_a_dead_letter_is_replayed_to_its_own_listener_only(
    bus: Bus, dead_letters: Run
) -> None:
    message = await add_dead_letter(bus)
    other = await add_dead_letter(bus, "bob")

    # The id as the list shows it.
    code, _, stderr = dead_letters("replay", message.id[:8])

    assert (code, "Replayed 1 dead letter." in stderr) == (0, True)
    assert await waiting_for(bus, "welcome") == [({"username": "ann", "email": "e"}, 1)]
    assert await waiting_for(bus, "count") == []
    assert await left(bus) == [other.id]


async def test_dead_letters_that_match_a_filter_are_replayed_in_order(
    bus: Bus, dead_letters: Run
) -> None:
    for number in range(150):
        await add_dead_letter(bus, str(number))
    kept = await add_dead_letter(bus, error=KeyError("x"))

    code, _, stderr = dead_letters("replay", "--error", "LookupError")

    assert (code, "Replayed 150 dead letters." in stderr) == (0, True)
    names = [kwargs["username"] for kwargs, _ in await waiting_for(bus, "welcome")]
    assert names == [str(number) for number in range(150)]
    assert await left(bus) == [kept.id]


async def test_all_dead_letters_are_replayed_with_all(bus: Bus, dead_letters: Run) -> None:
    await add_dead_letter(bus)
    await add_dead_letter(bus, listener="count")

    assert dead_letters("replay")[0] == 2
    assert len(await left(bus)) == 2
    assert dead_letters("replay", "--all")[0] == 0
    assert await left(bus) == []


async def test_a_dead_letter_whose_listener_is_gone_stays_and_the_others_are_replayed(
    bus: Bus, dead_letters: Run
) -> None:
    gone = await add_dead_letter(bus, listener="gone")
    await add_dead_letter(bus)

    code, _, stderr = dead_letters("replay", "--all")

    assert code == 1
    assert "Listener 'gone' of service 'shop' has no queue" in " ".join(stderr.split())
    assert "Replayed 1 of 2 dead letters." in stderr
    assert await left(bus) == [gone.id]
