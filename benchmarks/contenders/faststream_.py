"""FastStream, with and without a typed body."""

from __future__ import annotations

from typing import Any

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.schemas import ExchangeType
from pydantic import BaseModel

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

EXCHANGE = RabbitExchange(API, type=ExchangeType.TOPIC, durable=True)
QUEUE = RabbitQueue(LISTENER, queue_type=QueueType.QUORUM, durable=True, routing_key=EVENT)


class UserCreated(BaseModel):
    number: int
    username: str
    email: str
    text: str


class Program:
    def __init__(self, options: Options, clock: Clock | None) -> None:
        self._options = options
        self.broker = RabbitBroker(
            options.url,
            default_channel=Channel(prefetch_count=options.prefetch, publisher_confirms=True),
            logger=None,
        )

        async def handle(event: UserCreated) -> None:
            if clock is not None:
                clock.note(event.number)

        def handle_sync(event: UserCreated) -> None:
            if clock is not None:
                clock.note(event.number)

        self.broker.subscriber(QUEUE, EXCHANGE)(
            handle_sync if options.handler == "sync" else handle
        )

    async def connect(self) -> None:
        await self.broker.connect()
        exchange = await self.broker.declare_exchange(EXCHANGE)
        queue = await self.broker.declare_queue(QUEUE)
        await queue.bind(exchange, routing_key=EVENT)

    async def fire(self, number: int) -> Any:
        await self.broker.publish(
            UserCreated(**fields(number, self._options.body)),
            exchange=EXCHANGE,
            routing_key=EVENT,
            persist=True,
        )


async def fire(options: Options) -> Result:
    program = Program(options, None)
    await program.connect()
    clock = Clock(options)
    await fire_all(program.fire, options, clock)
    return await clock.result()


async def handle(options: Options) -> Result:
    clock = Clock(options)
    program = Program(options, clock)
    await program.connect()
    if not options.is_filled:
        await fire_all(program.fire, options)
    await program.broker.start()
    return await clock.result()


async def fire_and_handle(options: Options) -> Result:
    clock = Clock(options)
    listening, firing = Program(options, clock), Program(options, None)
    await listening.connect()
    await listening.broker.start()
    await firing.connect()
    return await fire_for_handlers(firing.fire, options, clock)


main({"fire": fire, "handle": handle, "fire_and_handle": fire_and_handle})
