"""What an event costs in instructions of Python: a number that no other load on the machine moves.

Where an event is to cost more, run this file on each Python, and record what its failures say.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Self

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

import lightbus
from core.apis import AuthApi
from lightbus.message import EventMessage
from lightbus_rabbitmq import headers
from lightbus_rabbitmq.driver.decoding import Decoder
from lightbus_rabbitmq.driver.encoding import EventEncoder

EVENTS = 50

# A patch release of Python, or of a library, may take a few more.
TOLERANCE = 1.05

# By Python. One that is not recorded is held to the most that another takes.
FIRED_AND_HANDLED = {(3, 11): 1948, (3, 12): 1745, (3, 13): 1763}
ENCODED = {(3, 11): 310, (3, 12): 271, (3, 13): 262}
DECODED = {(3, 11): 782, (3, 12): 693, (3, 13): 666}


class Instructions:
    """Counts, in a `with` block, the instructions of all that is called on this thread."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        # Python 3.12 looks when tracing begins for whether any frame wants instructions.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._begin_frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _begin_frame(self, frame: FrameType, what: str, argument: object) -> Callable[..., Any]:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._note

    def _note(self, frame: FrameType, what: str, argument: object) -> Callable[..., Any]:
        self.count += what == "opcode"
        return self._note


def check(what: str, instructions: Instructions, recorded: dict[tuple[int, int], int]) -> None:
    """Fail where an event takes more than is recorded for this Python."""
    each = instructions.count // EVENTS
    assert each > 0, "This Python does not tell of instructions."
    version = sys.version_info[:2]
    ceiling = recorded.get(version, max(recorded.values()))
    assert each <= ceiling * TOLERANCE, (
        f"{what} takes {each} instructions on Python {version[0]}.{version[1]}, and {ceiling} are "
        f"recorded. If that is what it is worth, record {each} in {__file__}."
    )


def event(number: int) -> EventMessage:
    return EventMessage.create(
        "auth",
        "user_created",
        {"username": "adam", "email": "adam@example.com"},
        id=f"6f9619ff-8b86-4011-b42d-00c04fc9{number:04}",
        fired_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        service_name="shop",
    )


def payloads(tag: int, message: EventMessage) -> tuple[bytes, bytes, bytes]:
    """Return what the frames of a delivery hold."""
    delivery = Basic.Deliver("consumer", tag, exchange="lightbus:auth", routing_key="user_created")
    properties = headers.properties_of(message)
    header = ContentHeader(properties=properties, body_size=len(message.body))
    method = delivery.index.to_bytes(4, "big") + delivery.marshal()
    return method, header.marshal(), message.body


def decoded(decoder: Decoder, delivery: bytes, header: bytes, body: bytes) -> EventMessage:
    no_channel: Any = None
    message = DeliveredMessage(
        delivery=decoder.delivery(delivery),
        header=decoder.header(header),
        body=body,
        channel=no_channel,
    )
    return headers.message_of(message, "auth")


async def test_firing_and_handling_an_event_takes_no_more_instructions_than_recorded() -> None:
    bus = lightbus.create({"apis": {"default": {"event_transport": {"memory": {}}}}})
    bus.client.register_api(AuthApi())
    handled = asyncio.Event()

    async def handle(username: str, email: str) -> None:
        handled.set()

    async def fire_and_wait() -> None:
        handled.clear()
        await bus.auth.user_created.fire_async(username="adam", email="adam@example.com")
        await handled.wait()

    bus.auth.user_created.listen(handle, listener_name="welcome")
    async with lightbus.Worker(bus):
        await fire_and_wait()
        with Instructions() as instructions:
            for _ in range(EVENTS):
                await fire_and_wait()
    await bus.client.close_async()

    check("Firing and handling an event", instructions, FIRED_AND_HANDLED)


def test_encoding_an_event_for_rabbitmq_takes_no_more_instructions_than_recorded() -> None:
    events = [event(number) for number in range(EVENTS)]
    encoder = EventEncoder(1, 131_072)
    encoder.encode(event(EVENTS), is_mandatory=True)

    with Instructions() as instructions:
        for each in events:
            encoder.encode(each, is_mandatory=True)

    check("Encoding an event", instructions, ENCODED)


def test_decoding_an_event_from_rabbitmq_takes_no_more_instructions_than_recorded() -> None:
    sent = [event(number) for number in range(EVENTS)]
    decoder = Decoder()
    decoded(decoder, *payloads(1, event(EVENTS)))
    frames = [payloads(number, each) for number, each in enumerate(sent)]

    with Instructions() as instructions:
        received = [decoded(decoder, *each) for each in frames]

    assert received == sent
    check("Decoding an event", instructions, DECODED)
