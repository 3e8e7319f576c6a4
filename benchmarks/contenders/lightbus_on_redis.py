"""Lightbus 1, which supports only Redis."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import Any

import lightbus
from lightbus import Api, Event
from measuring import (
    API,
    EVENT,
    LISTENER,
    PATIENCE,
    SERVICE,
    Clock,
    Options,
    Result,
    fields,
    fire_all,
    fire_from_threads,
    main,
)


class AuthApi(Api):
    user_created = Event(parameters=("number", "username", "email", "text"))

    class Meta:
        name = API


def make_bus(options: Options, clock: Clock | None = None) -> Any:
    redis = {"redis": {"url": options.url}}
    event_transport = {"redis": {"url": options.url, "batch_size": options.prefetch}}
    bus = lightbus.create(
        config={
            "service_name": SERVICE,
            "bus": {"schema": {"transport": redis}},
            "apis": {
                "default": {
                    "event_transport": event_transport,
                    "rpc_transport": redis,
                    "result_transport": redis,
                }
            },
        },
    )
    bus.client.register_api(AuthApi())

    async def handle(event_message: Any, number: int, username: str, email: str, text: str) -> None:
        if clock is not None:
            clock.note(number)

    bus.client.listen_for_event(API, EVENT, handle, listener_name=LISTENER)
    return bus


async def fire(options: Options) -> Result:
    clock = Clock(options)
    bus = make_bus(options)

    async def fire_one(number: int) -> None:
        await bus.auth.user_created.fire_async(**fields(number, options.body))

    await fire_all(fire_one, options, clock)
    return await clock.result()


async def declare(options: Options) -> Result:
    async with asyncio.timeout(PATIENCE):
        await make_bus(options).client.start_worker()
        await asyncio.sleep(1)  # it does not tell when its listeners are known to Redis
    return {}


def fire_blocking(options: Options) -> Result:
    bus = make_bus(options)

    def fire_one(number: int) -> None:
        bus.auth.user_created.fire(**fields(number, options.body))

    return fire_from_threads(fire_one, options)


async def handle(options: Options) -> Result:
    clock = Clock(options)
    bus = make_bus(options, clock)

    async def fire_one(number: int) -> None:
        await bus.auth.user_created.fire_async(**fields(number, options.body))

    # Listeners receive events fired after their first start, and can run only once in a process.
    given = json.dumps(dataclasses.asdict(options))
    first = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "declare", given, stdout=asyncio.subprocess.DEVNULL
    )
    await first.wait()
    await fire_all(fire_one, options)
    await bus.client.start_worker()
    return await clock.result()


main({"fire": fire, "fire_blocking": fire_blocking, "handle": handle, "declare": declare})
