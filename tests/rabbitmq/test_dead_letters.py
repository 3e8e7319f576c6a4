"""A reader of dead letters on RabbitMQ gets all of them, or an error that says why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage

from command import Command
from lightbus import Worker
from lightbus.exceptions import QueueInUse
from lightbus_rabbitmq import dead_letters
from rabbitmq.dead_letter_support import add_dead_letters, read_dead_letters
from rabbitmq.topology_support import TopologyCommand
from rabbitmq_support import DEAD, Broker, MakeBus, transport_of

SERVICE = """
import lightbus
bus = lightbus.create(service_name='shop')
bus.client.listen_for_event('auth', 'user_created', print, listener_name='welcome')
"""
# Reads the first dead letter, and then nothing more.
STUCK_READER = """
import asyncio
from bus import bus

async def main():
    transport = await bus.client.transports.open('auth')
    async for letter in transport.dead_letters('shop'):
        print(letter.message.id, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path, rabbitmq_url: str) -> Path:
    """The folder of the service."""
    default = {"event_transport": {"rabbitmq": {"url": rabbitmq_url}}}
    (tmp_path / "lightbus.json").write_text(json.dumps({"apis": {"default": default}}))
    (tmp_path / "bus.py").write_text(SERVICE)
    return tmp_path


async def test_two_exports_that_start_together_each_write_all(
    make_bus: MakeBus, folder: Path
) -> None:
    ids = await add_dead_letters(make_bus(), 400)

    with Command(folder) as command:
        began = time.monotonic()
        exports = [command.start("dead-letters", "export") for _ in range(2)]
        ended = await asyncio.gather(*(asyncio.to_thread(export.communicate) for export in exports))
        took = time.monotonic() - began

    assert [export.returncode for export in exports] == [0, 0], ended
    for printed, _ in ended:
        assert [json.loads(line)["id"] for line in printed.splitlines()] == ids
    assert took < 15


async def test_an_export_whose_output_is_not_read_does_not_block_others(
    make_bus: MakeBus, folder: Path
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 400)

    with Command(folder) as command:
        process = command.start("dead-letters", "export")
        assert process.stdout is not None
        # The output does not fit into the buffer of a pipe.
        await asyncio.to_thread(process.stdout.readline)

        assert await read_dead_letters(bus) == ids


async def test_a_killed_reader_does_not_hide_dead_letters_from_the_next(
    make_bus: MakeBus, folder: Path
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 20)
    (folder / "reader.py").write_text(STUCK_READER)
    process = await asyncio.create_subprocess_exec(
        *("python", "reader.py"), cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode().strip() == ids[0]

    process.kill()

    assert await read_dead_letters(bus) == ids
    await process.wait()


@pytest.mark.parametrize("is_consumer", [False, True], ids=["gets", "consumes"])
async def test_dead_letters_that_another_client_holds_are_awaited_and_then_reported(
    make_bus: MakeBus,
    other_client: AbstractChannel,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_consumer: bool,
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 5)
    if is_consumer:
        arrived = asyncio.Queue[DeliveredMessage]()
        await other_client.basic_consume(DEAD, arrived.put)
        await arrived.get()
    else:
        await other_client.basic_get(DEAD)

    monkeypatch.setattr(dead_letters, "ACQUIRE_TIMEOUT", 0.3)
    with pytest.raises(QueueInUse, match="another AMQP client"):
        await read_dead_letters(bus)

    monkeypatch.undo()
    waiting = asyncio.create_task(read_dead_letters(bus))
    await other_client.close()
    assert await waiting == ids


async def test_dead_letters_that_another_client_holds_during_reading_are_reported(
    make_bus: MakeBus, other_client: AbstractChannel
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 5)
    letters = transport_of(bus).dead_letters("shop")
    assert (await anext(letters)).message.id == ids[0]
    await other_client.basic_get(DEAD)
    assert [(await anext(letters)).message.id for _ in range(3)] == ids[2:]

    with pytest.raises(QueueInUse, match="another AMQP client"):
        await anext(letters)


async def test_another_client_that_starts_to_consume_does_not_delay_the_end_of_reading(
    make_bus: MakeBus, other_client: AbstractChannel, broker: Broker
) -> None:
    bus = make_bus()
    await add_dead_letters(bus, 100)
    letters = transport_of(bus).dead_letters("shop")
    for _ in range(100):
        await anext(letters)
    arrived = asyncio.Queue[DeliveredMessage]()
    await other_client.basic_qos(prefetch_count=1)
    await other_client.basic_consume(DEAD, arrived.put)

    async with asyncio.timeout(2.5 * dead_letters.COUNTS_TIMEOUT):
        await letters.aclose()

    await other_client.close()
    await broker.wait_for_count(DEAD, 100)


async def test_dead_letters_that_another_client_removes_during_reading_are_reported(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    await add_dead_letters(bus, 5)
    letters = transport_of(bus).dead_letters("shop")
    await anext(letters)
    await broker.get(DEAD)

    with pytest.raises(QueueInUse, match="another client removed 1 of 5"):
        async for _ in letters:
            pass


async def test_dead_letters_that_another_client_requeues_during_reading_are_read(
    make_bus: MakeBus, other_client: AbstractChannel
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 5)
    letters = transport_of(bus).dead_letters("shop")
    found = [(await anext(letters)).message.id]
    held = [await other_client.basic_get(DEAD) for _ in range(4)]
    rest = asyncio.create_task(anext(letters))
    for one in held:
        await other_client.basic_nack(int(one.delivery_tag or 0), requeue=True)
    found.append((await rest).message.id)
    found += [letter.message.id async for letter in letters]

    assert sorted(found) == sorted(ids)


async def test_dead_letters_that_arrive_during_reading_are_read(
    make_bus: MakeBus, broker: Broker
) -> None:
    bus = make_bus()
    ids = await add_dead_letters(bus, 3)
    found = []
    async for letter in transport_of(bus).dead_letters("shop"):
        found.append(letter.message.id)
        if len(found) == 3:
            ids += await add_dead_letters(bus, 2, first=3)
        if len(found) % 2:
            await letter.discard()

    assert found == ids
    assert await read_dead_letters(bus) == [ids[1], ids[3]]


async def test_reading_ends_even_if_dead_letters_arrive_as_fast_as_they_are_read(
    make_bus: MakeBus,
) -> None:
    bus, busy = make_bus(), make_bus()
    ids = await add_dead_letters(bus, 3)
    found = []
    letters = transport_of(bus).dead_letters("shop")
    async with contextlib.aclosing(letters):
        async for letter in letters:
            found.append(letter.message.id)
            await add_dead_letters(busy, 1)
            assert len(found) < 100

    assert found[:3] == ids


async def test_dead_letters_in_the_queue_of_an_interrupted_migration_are_not_overlooked(
    make_bus: MakeBus, other_client: AbstractChannel, rabbitmq_url: str, tmp_path: Path
) -> None:
    bus = make_bus(acknowledgement_timeout=1)
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    async with Worker(bus):
        pass
    ids = await add_dead_letters(bus, 2)
    temporary = f"{DEAD}#migrating"
    await other_client.queue_declare(temporary, durable=True, arguments={"x-queue-type": "quorum"})
    moved = await other_client.basic_get(DEAD)
    await other_client.basic_publish(
        moved.body, routing_key=temporary, properties=moved.header.properties
    )
    await other_client.basic_ack(int(moved.delivery_tag or 0))

    with pytest.raises(QueueInUse, match="lightbus topology --migrate"):
        await read_dead_letters(bus)

    await TopologyCommand(tmp_path / "shop", rabbitmq_url)("--migrate")
    assert sorted(await read_dead_letters(bus)) == sorted(ids)


async def test_status_counts_dead_letters_and_holds_none(
    make_bus: MakeBus, folder: Path, other_client: AbstractChannel
) -> None:
    bus = make_bus()
    await add_dead_letters(bus, 1200)
    letters = transport_of(bus).dead_letters("shop")

    def status() -> tuple[int | None, str]:
        with Command(folder) as command:
            (shown,) = json.loads(command("status", "--format", "json")[1])
            assert shown["dead"] is None
            return shown["dead_in_service"], command("status")[1].splitlines()[-1]

    assert await asyncio.to_thread(status) == (1200, "Dead letters of the service: 1,200.")
    async with contextlib.aclosing(letters):
        await anext(letters)
        total, line = await asyncio.to_thread(status)
        assert total is None
        assert "unknown" in line
