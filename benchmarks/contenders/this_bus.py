"""Lightbus, on each of its transports."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import lightbus
from lightbus import Api, Event
from measuring import (
    API,
    EVENT,
    LISTENER,
    SERVICE,
    Clock,
    Options,
    Result,
    fields,
    fire_all,
    fire_for_handlers,
    fire_from_threads,
    main,
)


def make_api(name_: str) -> type[Api]:
    class BenchApi(Api):
        user_created = Event(parameters=("number", "username", "email", "text"))

        class Meta:
            name = name_

    return BenchApi


def api_names(options: Options) -> list[str]:
    return [API, *(f"{API}_{number}" for number in range(1, options.apis))]


def settings(options: Options) -> dict[str, Any]:
    place = {"rabbitmq": "url", "sqlite": "path", "memory": "name"}[options.transport]
    found: dict[str, Any] = {place: options.url or "bench"}
    if options.transport != "memory":
        found["prefetch"] = options.prefetch
    return {options.transport: found}


def make_bus(options: Options, clock: Clock | None = None) -> lightbus.Bus:
    bus = lightbus.create(
        {"apis": {"default": {"event_transport": settings(options)}}}, service_name=SERVICE
    )

    async def handle(number: int, username: str, email: str, text: str) -> None:
        if clock is not None:
            clock.note(number)

    def handle_sync(number: int, username: str, email: str, text: str) -> None:
        if clock is not None:
            clock.note(number)

    for name in api_names(options):
        bus.client.register_api(make_api(name))
        for number in range(options.listeners):
            bus.client.listen_for_event(
                name,
                EVENT,
                handle_sync if options.handler == "sync" else handle,
                listener_name=f"{LISTENER}_{number}" if number else LISTENER,
            )
    return bus


class Firing:
    """Fires events on the APIs of a bus in rotation."""

    def __init__(self, bus: lightbus.Bus, options: Options) -> None:
        self._events = [getattr(getattr(bus, name), EVENT) for name in api_names(options)]
        self._body = options.body

    def fire_async(self, number: int) -> Awaitable[Any]:
        event = self._events[number % len(self._events)]
        fired: Awaitable[Any] = event.fire_async(**fields(number, self._body))
        return fired

    def fire(self, number: int) -> None:
        self._events[number % len(self._events)].fire(**fields(number, self._body))


async def fire(options: Options) -> Result:
    clock = Clock(options)
    firing = Firing(make_bus(options), options)
    await fire_all(firing.fire_async, options, clock)
    return await clock.result()


def fire_blocking(options: Options) -> Result:
    return fire_from_threads(Firing(make_bus(options), options).fire, options)


async def handle(options: Options) -> Result:
    clock = Clock(options)
    bus = make_bus(options, clock)
    if not options.is_filled:
        waiting = range(options.events + options.backlog)
        await fire_all(Firing(bus, options).fire_async, options, only=waiting)
    async with lightbus.Worker(bus):
        return await clock.result()


async def fire_and_handle(options: Options) -> Result:
    each = options.listeners
    clock = Clock(replace(options, count=options.count * each, warm_up=options.warm_up * each))
    bus = make_bus(options, clock)
    async with lightbus.Worker(bus):
        return await fire_for_handlers(Firing(bus, options).fire_async, options, clock)


main(
    {
        "fire": fire,
        "fire_blocking": fire_blocking,
        "handle": handle,
        "fire_and_handle": fire_and_handle,
    }
)
