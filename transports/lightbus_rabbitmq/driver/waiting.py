"""Waits for answers of the broker, no longer than the connection lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiormq.abc

from lightbus_rabbitmq.driver.errors import ConnectionLost, error_text, translate_error

T = TypeVar("T")

_kept_tasks: set[asyncio.Task[Any]] = set()


async def run_while_connected(
    connection: aiormq.abc.AbstractConnection, work: Coroutine[Any, Any, T]
) -> T:
    """Return what `work` on a connection returns, but wait no longer than the connection lasts.

    Without this, the driver can wait forever for an answer on a connection that was lost.

    Raises:
        ConnectionLost: The connection was closed before `work` ended.
        Exception: An error that `work` raised.
    """
    working, closing = asyncio.create_task(work), connection.closing
    try:
        await asyncio.wait({working, closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        closing.cancel()  # otherwise the connection keeps a reference to it
        if not working.done():
            working.cancel()
            keep_task(working)
    if not working.done():
        raise ConnectionLost(_why_closed(closing))
    return working.result()


def _why_closed(closing: asyncio.Future[Any]) -> str:
    cause = None if closing.cancelled() or not closing.done() else closing.exception()
    return error_text(cause) if cause is not None else "the connection was closed"


async def close_quietly(channel: aiormq.abc.AbstractChannel, timeout: float) -> None:
    """Close a channel. Errors of the broker or the connection are ignored."""
    await run_quietly(channel, channel.close(), doing="to close a channel", timeout=timeout)


async def run_quietly(
    channel: aiormq.abc.AbstractChannel,
    work: Coroutine[Any, Any, Any],
    *,
    doing: str,
    timeout: float,
) -> None:
    """Do `work` on a channel. Errors of the broker or the connection are ignored."""
    try:
        async with asyncio.timeout(timeout):
            await run_while_connected(channel.connection, work)
    except (TimeoutError, ConnectionLost):
        pass
    except (Exception, asyncio.CancelledError) as error:
        if translate_error(error, doing) is None:
            raise


def keep_task(task: asyncio.Task[Any]) -> None:
    """Keep a reference to a task that no caller awaits, until it ends."""
    _kept_tasks.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _kept_tasks.discard(task)
    if not task.cancelled():
        task.exception()  # asyncio logs an exception that was never retrieved
