"""docs/from-celery.rst, run."""

from __future__ import annotations

import asyncio

from docs.pages import Page
from lightbus import Api, event
from lightbus.testing import RecordingBus

PAGE = Page("from-celery")


class OrderApi(Api):
    @event
    def order_paid(self, *, number: int, email: str) -> None:
        """A customer has paid for an order."""

    class Meta:
        name = "orders"


async def test_a_task_becomes_an_event_with_a_handler(recording_bus: RecordingBus) -> None:
    sent: list[tuple[int, str]] = []

    def send_receipt(number: int, email: str) -> None:
        sent.append((number, email))

    recording_bus.client.register_api(OrderApi)
    fired, listening = PAGE.block("@app.task").split("# and in the service that sends mails")
    names = {"bus": recording_bus, "OrderApi": OrderApi, "send_receipt": send_receipt}

    exec(listening, names)
    await asyncio.to_thread(exec, fired, names)
    await recording_bus.drain()

    assert sent == [(7, "ann@example.com")]
