"""``lightbus move``: takes the events of a service from one broker to another."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lightbus import config
from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.console import err
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.running import report_error
from lightbus.cli.support.signals import ForkSafeSignals, cancel_on_signals
from lightbus.client import BusClient
from lightbus.operations.move import Move, QueueMove

# How often the progress is drawn, in seconds.
_PERIOD = 0.1


@click.command()
@click.option(
    "--to",
    "target_file",
    metavar="FILE",
    required=True,
    help="The config file (YAML, JSON or TOML) of the target broker.",
)
@bus_options
def move(*, target_file: str, **options: Any) -> None:
    """Move the events of a service to another broker.

    Moves the waiting, delayed and dead events of the bus's listeners from the configured broker to
    the broker in FILE, for the same listeners.

    First switch all programs that fire these events to the new configuration, and stop the
        service's workers.

    You can stop or kill the command at any point and start it again. No event is lost; events that
    were in flight may be delivered twice. Exits with 0 if no event is left, 1 if it was stopped or
    a broker failed, and 2 if the usage, a configuration or the bus module is wrong.
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
        with _progress(moving) as draw:
            while not running.done():
                await asyncio.wait({running}, timeout=_PERIOD)
                draw()
        was_stopped = running.cancelled()
        if not was_stopped:
            running.result()
    finally:
        await source.close_async()
        await target.close_async()
    moved = sum(queue.moved for queue in moving.queues)
    told = f"{moved:,} events and {moving.dead_letters:,} dead letters were moved"
    if was_stopped:
        err.print_line(f"Stopped: {told}. Run it again to move the rest.")
        return FAILED
    service = source.config.service_name
    err.print_line(f"Done: {told}. None is left for the listeners of service {service!r}.")
    return SUCCEEDED


@contextlib.contextmanager
def _progress(moving: Move) -> Iterator[Any]:
    """Give a function that draws how far the move is."""
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        TimeElapsedColumn(),
        console=err,
    )
    tasks: dict[QueueMove, TaskID] = {}

    def draw() -> None:
        for queue in moving.queues:
            if queue not in tasks:
                name = f"{queue.listener.api_name} {queue.listener.name}"
                tasks[queue] = progress.add_task(name, told="")
            # Without a total, the bar only shows that something goes on.
            total = queue.moved + queue.left if queue.left else None
            progress.update(
                tasks[queue],
                completed=1 if queue.is_done else queue.moved,
                total=1 if queue.is_done else total,
                told=_told(queue),
            )

    with progress:
        yield draw
        draw()


def _told(queue: QueueMove) -> str:
    if queue.is_done:
        left = "none left"
    elif queue.left:
        left = f"{queue.left:,} left"
    else:
        left = "waiting for delayed events"
    return f"{queue.moved:,} moved, {left}"
