"""aio-pika, used as in its documentation."""

from __future__ import annotations

import json
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage, AbstractQueue

from measuring import (
    API,
    EVENT,
    LISTENER,
    Clock,
    Options,
    Result,
    fields,
    fire_all,
    fire_for_handlers,
    main,
)


class Program:
    """A durable exchange, and a quorum queue that is bound to it."""

    channel: AbstractChannel
    exchange: AbstractExchange
    queue: AbstractQueue

    def __init__(self, options: Options) -> None:
        self._options = options

    async def connect(self) -> None:
        connection = await aio_pika.connect_robust(self._options.url)
        self.channel = await connection.channel(publisher_confirms=True)
        self.exchange = await self.channel.declare_exchange(
            API, aio_pika.ExchangeType.TOPIC, durable=True
        )
        self.queue = await self.channel.declare_queue(
            LISTENER, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await self.queue.bind(self.exchange, routing_key=EVENT)

    async def fire(self, number: int) -> Any:
        await self.exchange.publish(
            aio_pika.Message(
                json.dumps(fields(number, self._options.body)).encode(),
                content_type="application/json",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            routing_key=EVENT,
        )

    async def listen(self, clock: Clock) -> None:
        async def handle(message: AbstractIncomingMessage) -> None:
            event = json.loads(message.body)
            clock.note(event["number"])
            await message.ack()

        await self.channel.set_qos(prefetch_count=self._options.prefetch)
        await self.queue.consume(handle)


async def fire(options: Options) -> Result:
    program = Program(options)
    await program.connect()
    clock = Clock(options)
    await fire_all(program.fire, options, clock)
    return await clock.result()


async def handle(options: Options) -> Result:
    program = Program(options)
    await program.connect()
    if not options.is_filled:
        await fire_all(program.fire, options)
    clock = Clock(options)
    await program.listen(clock)
    return await clock.result()


async def fire_and_handle(options: Options) -> Result:
    clock = Clock(options)
    listening, firing = Program(options), Program(options)
    await listening.connect()
    await firing.connect()
    await listening.listen(clock)
    return await fire_for_handlers(firing.fire, options, clock)


main({"fire": fire, "handle": handle, "fire_and_handle": fire_and_handle})
