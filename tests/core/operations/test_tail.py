"""Looking at events as they come, in a program."""

from __future__ import annotations

import asyncio

import pytest

from core.apis import AuthApi, TicketApi
from core.support import PATIENCE, MakeBus
from lightbus import Bus, EventMessage
from lightbus.exceptions import InvalidName, TransportClosed
from lightbus.operations.tail import Events, tail
from lightbus_memory.broker import Broker


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    return make_bus(AuthApi, TicketApi)


async def fire(bus: Bus) -> None:
    await bus.auth.user_deleted.fire_async(username="ann")
    await bus.help_desk.ticket.ticket_created.fire_async(title="slow")


async def next_of(events: Events) -> EventMessage:
    async with asyncio.timeout(PATIENCE):
        return await anext(events)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", {"auth.user_deleted", "help_desk.ticket.ticket_created"}),
        ("auth.*", {"auth.user_deleted"}),
        ("a*.user_*", {"auth.user_deleted"}),
        ("help_desk.ticket.*", {"help_desk.ticket.ticket_created"}),
        ("help_desk.*", {"help_desk.ticket.ticket_created"}),
        ("help_*", {"help_desk.ticket.ticket_created"}),
    ],
)
async def test_a_pattern_must_match_names_of_events(
    bus: Bus, pattern: str, names: set[str]
) -> None:
    async with tail(bus.client, pattern) as events:
        await fire(bus)
        found = {(await next_of(events)).canonical_name for _ in names}
    assert found == names


@pytest.mark.parametrize("pattern", ["auth", "mail*", "mail?.sent"])
async def test_a_pattern_without_a_known_api_is_refused(bus: Bus, pattern: str) -> None:
    with pytest.raises(InvalidName, match="it matches no known API"):
        async with tail(bus.client, pattern):
            pass


async def test_a_reader_can_continue_after_a_timeout(bus: Bus) -> None:
    async with tail(bus.client, "auth.*") as events:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(events)
        await fire(bus)
        assert (await next_of(events)).event_name == "user_deleted"


async def test_readers_end_when_the_block_is_left_and_nothing_remains(
    bus: Bus, broker: Broker
) -> None:
    async def read(events: Events) -> list[str]:
        return [message.event_name async for message in events]

    before = asyncio.all_tasks()
    async with tail(bus.client, "auth.*") as events:
        readers = [asyncio.create_task(read(events)) for _ in range(2)]
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*readers) == [[], []]
    assert asyncio.all_tasks() == before
    assert not broker.is_tailed


async def test_the_iteration_ends_with_the_error_of_a_closed_bus(bus: Bus) -> None:
    async with tail(bus.client, "auth.*") as events:
        await bus.client.close_async()
        with pytest.raises(TransportClosed):
            await next_of(events)


async def test_events_that_nobody_reads_do_not_fill_the_event_loop(bus: Bus) -> None:
    async with tail(bus.client, "auth.*"):
        for _ in range(3_000):
            await bus.auth.user_deleted.fire_async(username="ann")
        assert len(asyncio.get_running_loop()._ready) < 50  # type: ignore[attr-defined]
