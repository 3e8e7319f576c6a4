"""``lightbus move``: moves the events of a service to another broker."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from lightbus import config
from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.console import err, format_count
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.progress import QueueProgress
from lightbus.cli.support.running import report_error
from lightbus.cli.support.signals import ForkSafeSignals, cancel_on_signals
from lightbus.client import BusClient
from lightbus.operations.move import Move, QueueMove

# Seconds between two updates of the progress bars
_REFRESH_INTERVAL = 0.1


@click.command()
@click.option(
    "--to",
    "target_file",
    metavar="FILE",
    required=True,
    help="Config file of the target broker: YAML, JSON or TOML.",
)
@bus_options
def move(*, target_file: str, **options: Any) -> None:
    """Move the events of a service to another broker.

    The command moves the waiting, delayed and dead events of the listeners of the bus from the
    configured broker to the broker in FILE, for the same listeners.

    First switch all programs that fire these events to the new configuration, and stop the workers
    of the service.

    You can stop the command at any point and run it again. No event is lost; events that were in
    flight may be delivered twice.

    Exits with 0 if no events are left, 1 if the command was stopped or a broker failed, and 2 if
    the usage, a configuration or the bus module is wrong.
    """
    set_up_logging("console", "warning")
    try:
        source = load_bus(**options).client
        service_name = source.config.service_name
        target = BusClient(config.load_file(target_file, service_name=service_name))
        with ForkSafeSignals():
            code = asyncio.run(_move(source, target))
    except Exception as error:  # a hook may raise any
        code = report_error(error)
    sys.exit(code)


async def _move(source: BusClient, target: BusClient) -> int:
    moving = Move(source, target)
    running = asyncio.create_task(moving.run())
    cancel_on_signals(running)
    try:
        with QueueProgress() as progress:
            while not running.done():
                await asyncio.wait({running}, timeout=_REFRESH_INTERVAL)
                _draw(progress, moving)
        is_stopped = running.cancelled()
        if not is_stopped:
            running.result()
    finally:
        await source.close_async()
        await target.close_async()
    events = format_count(sum(queue.moved for queue in moving.queues), "event")
    moved = f"{events} and {format_count(moving.dead_letters, 'dead letter')}"
    if is_stopped:
        err.print_line(f"Stopped. Moved {moved}. Run the command again to move the rest.")
        return FAILED
    service = source.config.service_name
    err.print_line(f"Moved {moved}. No events are left for the listeners of service {service!r}.")
    return SUCCEEDED


def _draw(progress: QueueProgress, moving: Move) -> None:
    for queue in moving.queues:
        progress.draw(
            f"{queue.listener.api_name} {queue.listener.name}",
            moved=queue.moved,
            left=queue.left,
            is_done=queue.is_done,
            status=_status(queue),
        )


def _status(queue: QueueMove) -> str:
    if queue.is_done:
        return "none left"
    if queue.left:
        return f"{queue.left:,} left"
    return "waiting for delayed events"
