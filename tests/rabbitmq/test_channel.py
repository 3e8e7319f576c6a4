"""What the channel does in bulk is what it would do one by one."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus import EventMessage
from lightbus.transport import Delivery, Subscription
from lightbus_rabbitmq import headers
from lightbus_rabbitmq.frames import EventFrames, encoded, encoded_method
from rabbitmq_support import Broker, MakeBus, transport_of

QUEUE = "lightbus:shop:welcome:auth"
FRAME_SIZE = 4096

SUBSCRIPTION = Subscription(
    service_name="shop",
    listener_name="welcome",
    api_name="auth",
    events=frozenset({"user_created"}),
    concurrency=100,
    acknowledgement_timeout=60,
    delays=frozenset({60.0}),
)

TIMES = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - the strategy adds the time zone
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]),
)
IDS = st.one_of(st.uuids().map(str), st.text(min_size=1, max_size=40))
NAMES = st.text("abcxyz-_/", min_size=1, max_size=20)


@given(
    event_id=IDS,
    fired_at=TIMES,
    service_name=NAMES,
    body=st.binary(max_size=3 * FRAME_SIZE),
)
@pytest.mark.parametrize("is_mandatory", [False, True])
def test_an_event_is_encoded_as_if_nothing_of_it_had_been_encoded_before(
    event_id: str, fired_at: datetime, service_name: str, body: bytes, *, is_mandatory: bool
) -> None:
    message = EventMessage(
        api_name="auth",
        event_name="user_created",
        body=body,
        id=event_id,
        fired_at=fired_at,
        service_name=service_name,
    )
    try:
        plain = encoded_method(
            "lightbus:auth", "user_created", is_mandatory=is_mandatory, channel_number=7
        ) + encoded(headers.properties_of(message), body, channel_number=7, frame_size=FRAME_SIZE)
    except ValueError:
        return  # an id that is too long for AMQP

    assert EventFrames(7, FRAME_SIZE).encoded(message, is_mandatory=is_mandatory) == plain


@pytest.mark.parametrize("seed", range(8))
async def test_deliveries_that_are_settled_in_any_order_are_each_settled_as_they_were_told(
    make_bus: MakeBus, broker: Broker, seed: int
) -> None:
    choose = random.Random(seed)
    bus = make_bus()
    bus.auth.user_created.listen(lambda username: None, listener_name="welcome")
    for number in range(60):
        await bus.auth.user_created.fire_async(username=str(number), email="e")
    transport = transport_of(bus)
    stream = await transport.subscribe(SUBSCRIPTION)
    deliveries = [await anext(stream) for _ in range(60)]
    choose.shuffle(deliveries)
    settled: dict[str, str] = {}
    for delivery in deliveries:
        how = choose.choice(["ack", "ack", "ack", "requeue", "leave"])
        settled[username(delivery)] = how
        if how == "ack":
            await delivery.ack()
        elif how == "requeue":
            await delivery.requeue()
        if choose.random() < 0.3:
            await asyncio.sleep(0)  # what was settled so far may be written now

    await stream.aclose()

    left = sorted(name for name, how in settled.items() if how != "ack")
    await broker.wait_for_count(QUEUE, len(left))
    again = await transport.subscribe(SUBSCRIPTION)
    assert sorted([username(await anext(again)) for _ in left]) == left
    await again.aclose()


def username(delivery: Delivery) -> str:
    return str(delivery.message.kwargs["username"])
