"""Replays or discards many dead letters, with progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import attrs
from rich.progress import Progress

from lightbus.cli.support.console import err, format_count
from lightbus.cli.support.dead_letter_selection import read_all, report_missing
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.exceptions import TransportError
from lightbus.operations.dead_letters import DeadLetters, Filter, LetterKey
from lightbus.transport.features import DeadLetter


@attrs.frozen
class Batch:
    """What to do with which dead letters.

    Attributes:
        selection: Selects the dead letters.
        process: Processes one; returns False if it left the dead letter unchanged.
        done: What `process` did, for the messages, such as ``"Replayed"``.
        check: Called with the number of dead letters before the first is processed.
    """

    selection: Filter
    process: Callable[[BusClient, DeadLetter], Awaitable[bool]]
    done: str
    check: Callable[[int], None] = lambda _: None


def run_batch(options: dict[str, Any], batch: Batch, *, shows_progress: bool = True) -> NoReturn:
    """Process each dead letter of `batch`, print the result and end the process."""

    async def work(client: BusClient) -> int:
        letters = await read_all(client, batch.selection)
        is_incomplete = report_missing(sorted(batch.selection.ids), letters)
        batch.check(len(letters))
        is_disabled = not (shows_progress and err.is_terminal)
        with Progress(console=err, disable=is_disabled, transient=True) as progress:
            done, failed = await _process(client, batch, letters, progress)
        total = format_count(len(letters), "dead letter")
        err.print_line(f"{batch.done} {total if done == len(letters) else f'{done:,} of {total}'}.")
        return FAILED if failed or is_incomplete else SUCCEEDED

    try:
        run_with_client(options, work)
    except KeyboardInterrupt:
        err.print_line("Stopped. The remaining dead letters are unchanged.")
        sys.exit(FAILED)


async def _process(
    client: BusClient, batch: Batch, letters: list[DeadLetter], progress: Progress
) -> tuple[int, int]:
    """Return how many dead letters were processed, and for how many that failed."""
    done = failed = 0
    task = progress.add_task(batch.done, total=len(letters))
    # A dead letter can only be processed while it is read, so this reads them again. It excludes
    # those that were added after `check`.
    keys = frozenset(LetterKey.of(letter) for letter in letters)
    reading = DeadLetters(client).matching(attrs.evolve(batch.selection, keys=keys))
    async with contextlib.aclosing(reading):
        async for letter in reading:
            try:
                done += await batch.process(client, letter)
            except TransportError as error:
                failed += 1
                err.print_line((f"{letter.message.id}:", "red"), f" {error}")
            progress.advance(task)
    return done, failed
