"""The command ``lightbus``: one file a subcommand, and helpers in `support`."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib.metadata import version
from typing import Any

import click

from lightbus.cli.config import config
from lightbus.cli.dead_letters import dead_letters
from lightbus.cli.fire import fire
from lightbus.cli.inspect import inspect
from lightbus.cli.listeners import listeners
from lightbus.cli.move import move
from lightbus.cli.run import run
from lightbus.cli.schema import schema
from lightbus.cli.status import status
from lightbus.cli.support.console import discard, end_output
from lightbus.cli.tail import tail
from lightbus.cli.topology import topology


class _Commands(click.Group):
    """Ends a command without a traceback if its output cannot be written."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except OSError as error:  # from `click`, which prints the help and flushes the output
            end_output(error)
        finally:
            for name in ("stdout", "stderr"):
                try:
                    getattr(sys, name).flush()
                except OSError:
                    discard(name)


@click.group(cls=_Commands)
@click.version_option(version("lightbus"), prog_name="lightbus")
def main() -> None:
    """Lightbus: an event bus for Python services."""
    # SIGTERM ends a command like Ctrl-C, unless the command handles it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the shell closed it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - stays open
        elif isinstance(stream, io.TextIOWrapper):
            # A character that the terminal cannot encode must not end the command.
            stream.reconfigure(errors="backslashreplace")


main.add_command(config)
main.add_command(dead_letters)
main.add_command(fire)
main.add_command(inspect)
main.add_command(listeners)
main.add_command(move)
main.add_command(run)
main.add_command(schema)
main.add_command(status)
main.add_command(tail)
main.add_command(topology)
