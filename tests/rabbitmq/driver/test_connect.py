"""A connection is closed when its event loop cancels its tasks, and only then."""

from __future__ import annotations

import aio_pika

from lightbus_rabbitmq.driver.connect import close_when_cancelled


async def test_a_connection_whose_loop_is_collected_as_garbage_is_not_closed(
    rabbitmq_url: str,
) -> None:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        closing = close_when_cancelled(connection)
        closing.send(None)

        closing.close()  # as the garbage collector does

        assert not connection.is_closed
