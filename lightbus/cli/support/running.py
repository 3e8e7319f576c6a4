"""Runs the work of a command and ends the process with an exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import click

from lightbus.cli.support.bus_options import load_client
from lightbus.cli.support.console import err
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED, WRONG_USAGE
from lightbus.cli.support.log_output import set_up_logging
from lightbus.cli.support.signals import ForkSafeSignals, cancel_on_signals
from lightbus.client import BusClient
from lightbus.exceptions import ConfigError, InvalidName, LightbusException

# The work of a command; returns the exit code.
Work = Callable[[BusClient], Coroutine[Any, Any, int]]


def run_with_client(options: dict[str, Any], work: Work) -> NoReturn:
    """Await `work` with the client of the bus, close the client and end the process.

    Args:
        options: The values of `bus_options`.
        work: Returns the exit code. An exception that it raises is reported in one line.
    """
    set_up_logging("console", "warning")
    try:
        code = asyncio.run(_work_and_close(load_client(**options), work))
    except (click.Abort, click.ClickException):
        raise
    except Exception as error:  # a hook may raise any
        code = report_error(error)
    sys.exit(code)


def run_until_stopped(
    options: dict[str, Any], work: Callable[[BusClient], Coroutine[Any, Any, None]]
) -> NoReturn:
    """Do what `run_with_client` does; SIGINT and SIGTERM cancel `work`, which counts as success."""

    async def cancellable(client: BusClient) -> int:
        cancel_on_signals()
        await work(client)
        return SUCCEEDED

    try:
        with ForkSafeSignals():
            run_with_client(options, cancellable)
    except asyncio.CancelledError:
        sys.exit(SUCCEEDED)


async def _work_and_close(client: BusClient, work: Work) -> int:
    try:
        return await work(client)
    finally:
        await client.close_async()


def report_error(error: Exception) -> int:
    """Print `error` in one line and return the exit code for it."""
    is_ours = isinstance(error, LightbusException)
    text = str(error) if is_ours else f"{type(error).__name__}: {error}"
    err.print_line(("Error:", "red"), f" {text}")
    return WRONG_USAGE if isinstance(error, ConfigError | InvalidName) else FAILED
