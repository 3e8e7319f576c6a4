"""Questions to the user."""

from __future__ import annotations

import signal

import click

from lightbus.log import in_one_line


def confirm(question: str, *, default: bool = False, abort: bool = False) -> bool:
    """Ask a yes-or-no question on standard error and return the answer.

    Ctrl-C ends the question. Under `asyncio.run`, it would instead cancel the task, which cannot
    be cancelled while it waits for the answer.

    Raises:
        click.Abort: The user pressed Ctrl-C; or the answer is no, and `abort` is true.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm(in_one_line(question), default=default, abort=abort, err=True)
    finally:
        signal.signal(signal.SIGINT, before)
