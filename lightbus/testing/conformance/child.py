"""The process that `processes` starts and kills.

It reads what to use from its standard input, and prints one line for each thing done.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

import msgspec

from lightbus.encoding.settings import convert_settings
from lightbus.message import EventMessage
from lightbus.testing.conformance.broker import DELAY, text_of
from lightbus.transport.contract import EventTransport
from lightbus.transport.failure import Failure
from lightbus.transport.features import LastAttempt
from lightbus.transport.records import Subscription
from lightbus.transport.registry import find_transport

TIMEOUT = 20.0


async def send(transport: EventTransport, subscription: Subscription) -> None:
    """Send numbered events; print each number once its event is stored."""
    (event_name,) = subscription.events
    for number in itertools.count():
        message = EventMessage.create(subscription.api_name, event_name, {"text": str(number)})
        await transport.send(message, timeout=TIMEOUT)
        print(number, flush=True)


async def take(transport: EventTransport, subscription: Subscription) -> None:
    """Receive one event, print its text, and never settle it."""
    stream = await transport.subscribe(subscription)
    print(text_of(await anext(stream)), flush=True)
    await asyncio.Event().wait()


async def take_all(transport: EventTransport, subscription: Subscription) -> None:
    """Receive as many events as the subscription handles at once; print the texts, and settle
    none.
    """
    stream = await transport.subscribe(subscription)
    for _ in range(subscription.concurrency):
        print(text_of(await anext(stream)), flush=True)
    await asyncio.Event().wait()


async def ack_one(transport: EventTransport, subscription: Subscription) -> None:
    """Acknowledge one event, and receive another without settling it. Print the text of each."""
    stream = await transport.subscribe(subscription)
    delivery = await anext(stream)
    await delivery.ack()
    print(text_of(delivery), flush=True)
    print(text_of(await anext(stream)), flush=True)
    await asyncio.Event().wait()


async def start_last(transport: EventTransport, subscription: Subscription) -> None:
    """Receive one event as if one attempt were allowed; print whether that attempt may start."""
    delivery = await anext(await transport.subscribe(subscription))
    assert isinstance(delivery, LastAttempt)
    print("starts" if await delivery.last_attempt(1) else "started before", flush=True)
    await asyncio.Event().wait()


async def work(transport: EventTransport, subscription: Subscription) -> None:
    """Settle events in each way, one after the other. Print the text of an event before its ack."""
    async for delivery in await transport.subscribe(subscription):
        text = text_of(delivery)
        match int(text) % 3:
            case 0:
                print(text, flush=True)
                await delivery.ack()
            case 1:
                await delivery.retry(after=DELAY)
            case _:
                failure = Failure.of(
                    LookupError(),
                    listener=subscription.listener_name,
                    attempt=delivery.attempt,
                    service_name=subscription.service_name,
                    process_name="child",
                )
                await delivery.dead_letter(failure)


async def _main(job: str, orders: dict[str, Any]) -> None:
    ((name, settings),) = orders["event_transport"].items()
    transport_class = find_transport(name)
    converted = convert_settings(settings or {}, transport_class.Settings, source="standard input")
    transport = transport_class(converted, client_name="child")
    await transport.open(timeout=TIMEOUT)
    subscription = msgspec.convert(orders["subscription"], Subscription)
    jobs = {
        "send": send,
        "take": take,
        "take_all": take_all,
        "ack_one": ack_one,
        "start_last": start_last,
        "work": work,
    }
    await jobs[job](transport, subscription)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], msgspec.json.decode(sys.stdin.readline())))
