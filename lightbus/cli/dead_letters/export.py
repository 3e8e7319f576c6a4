"""``lightbus dead-letters export``: writes dead letters to a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import click

from lightbus.cli.support.bus_options import bus_options
from lightbus.cli.support.console import out, to_json
from lightbus.cli.support.dead_letter_selection import filter_options, pop_filter
from lightbus.cli.support.exit_codes import SUCCEEDED
from lightbus.cli.support.running import run_with_client
from lightbus.client import BusClient
from lightbus.operations import dead_letter_export
from lightbus.operations.dead_letters import DeadLetters


@click.command(short_help="Write dead letters as JSON lines.")
@click.option(
    "-o",
    "--output",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    default="-",
    help="Write to FILE.  [default: standard output]",
)
@filter_options
@bus_options
def export(*, output: str, **options: Any) -> None:
    """Write dead letters with all details, as one JSON object a line."""
    selection = pop_filter(options)

    async def work(client: BusClient) -> int:
        letters = DeadLetters(client).matching(selection)
        # Read quickly into a file first: the reader of the output may be slow, and a broker may
        # keep the dead letters from other clients while this one reads them.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:
            async with contextlib.aclosing(letters):
                async for letter in letters:
                    lines.write(to_json(dead_letter_export.export(letter)) + "\n")
            lines.seek(0)
            with _open_output(output) as file:
                shutil.copyfileobj(lines, file)
        return SUCCEEDED

    run_with_client(options, work)


@contextlib.contextmanager
def _open_output(output: str) -> Iterator[IO[str]]:
    if output == "-":
        yield out.file
        out.file.flush()
        return
    try:
        with open(output, "w", encoding="utf-8", opener=_open_privately) as file:
            yield file
    except OSError as error:
        reason = error.strerror or error
        raise click.ClickException(f"Cannot write {output}: {reason}.") from error


def _open_privately(path: str, flags: int) -> int:
    # Events may hold secrets: only the user may read the file.
    return os.open(path, flags, 0o600)
