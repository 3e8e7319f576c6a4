"""The bus module of a run's services: what they fire, and how they handle it.

Every process runs in the run's folder, which holds the configuration.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal
from typing import Any

import lightbus
from faults.journal import Writer
from lightbus import Api, Event, EventMessage, OnError
from lightbus_rabbitmq.consumer import Consumer

# How often a handler fails for no reason, and the event is to be tried again after a wait.
HICCUPS = 0.01


class Hiccup(Exception):
    """The handler failed, as handlers do now and then."""


class SoakApi(Api):
    happened = Event(parameters=("number",))
    doomed = Event(parameters=("number",))

    class Meta:
        name = "soak"


bus = lightbus.create()
bus.client.register_api(SoakApi)
journal = Writer()


async def handle(event: EventMessage) -> None:
    if random.random() < HICCUPS:
        raise Hiccup
    journal.write("handled", event.id)


async def fail(event: EventMessage) -> None:
    raise Hiccup


bus.soak.happened.listen(handle, listener_name="soak", on_error=OnError.RETRY)
bus.soak.doomed.listen(fail, listener_name="doomed", on_error=OnError.ACKNOWLEDGE_AND_LOG)


_closing: set[asyncio.Task[Any]] = set()


@bus.client.on_start
async def close_channels_on_request() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _close_channels)


def _close_channels() -> None:
    """Have the broker close every channel that this process consumes on, and no connection."""
    for consumer in (found for found in gc.get_objects() if isinstance(found, Consumer)):
        if not consumer.channel.is_closed:
            # No delivery has this tag, which is an error of the channel.
            task = asyncio.ensure_future(consumer.channel.basic_ack(2**40, wait=False))
            _closing.add(task)
            task.add_done_callback(_closing.discard)
