"""Dramatiq: threads send messages to actors, which run in the threads of a worker."""

from __future__ import annotations

import os
from typing import Any

from measuring import LISTENER, PATIENCE, Clock, Options, Result, fields, fire_from_threads, main

# Dramatiq reads this at its first import.
os.environ["dramatiq_queue_prefetch"] = str(Options.prefetch)  # noqa: SIM112 - its name

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.worker import Worker


class QuorumBroker(RabbitmqBroker):
    """Declares quorum queues. By default, Dramatiq declares classic queues."""

    def _declare_queue(self, queue_name: str) -> Any:
        arguments = {**self._build_queue_arguments(queue_name), "x-queue-type": "quorum"}
        return self.channel.queue_declare(queue=queue_name, durable=True, arguments=arguments)


def make_actor(options: Options, clock: Clock | None) -> tuple[QuorumBroker, Any]:
    broker = QuorumBroker(url=options.url, confirm_delivery=True)

    def handle(number: int, username: str, email: str, text: str) -> None:
        if clock is not None:
            clock.note(number)

    return broker, dramatiq.actor(handle, broker=broker, queue_name=LISTENER)


def fire_blocking(options: Options) -> Result:
    _, actor = make_actor(options, None)
    return fire_from_threads(lambda number: actor.send(**fields(number, options.body)), options)


def handle(options: Options) -> Result:
    clock = Clock(options)
    broker, actor = make_actor(options, clock)
    if not options.is_filled:
        for number in range(options.events):
            actor.send(**fields(number, options.body))
    Worker(broker, worker_threads=8).start()
    return clock.ended.result(PATIENCE)


main({"fire_blocking": fire_blocking, "handle": handle})
