"""Events with any properties can be copied and dead-lettered."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from pamqp.commands import Basic

from lightbus_rabbitmq import copies, dead_letter_headers, headers
from rabbitmq.random_messages import (
    EXCHANGES,
    FRAME_SIZE,
    PROPERTIES,
    REST_OF_FRAME,
    SHORT,
    delivered_with,
    failure_at,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(PROPERTIES, SHORT, EXCHANGES)
def test_an_event_with_any_properties_can_be_handled_and_copied(
    properties: Basic.Properties, routing_key: str | None, exchange: str
) -> None:
    delivered = delivered_with(properties, routing_key=routing_key or "", exchange=exchange)

    message = headers.message_of(delivered, "auth")
    assert message.id
    assert message.version >= 0
    assert message.fired_at.tzinfo is UTC
    attempt = headers.attempt_of(delivered, "auth")
    assert attempt >= 1
    first = headers.first_failed_at(delivered, "auth")
    assert first is None or first.tzinfo is UTC

    story = dead_letter_headers.failure_headers(
        failure_at(attempt), message, queue="lightbus:shop:welcome:auth", frame_size=FRAME_SIZE
    )
    copy = copies.copy_properties(delivered, message, frame_size=FRAME_SIZE, **story)
    assert len(copy.marshal()) + REST_OF_FRAME <= FRAME_SIZE

    read, failure = dead_letter_headers.dead_letter_of(
        delivered_with(copy, routing_key="lightbus:shop:dead")
    )
    assert read.id == message.id
    assert failure.attempt == attempt
    assert failure.error_type == "builtins.ValueError"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(PROPERTIES, SHORT)
def test_any_message_in_the_dead_letter_queue_can_be_read(
    properties: Basic.Properties, routing_key: str | None
) -> None:
    message, failure = dead_letter_headers.dead_letter_of(
        delivered_with(properties, routing_key=routing_key or "")
    )

    assert message.id
    assert failure.attempt >= 1
    assert failure.failed_at.astimezone().isoformat()


@pytest.mark.parametrize("depth", [60, 400, 480, 490, 2_000])
def test_an_event_with_headers_of_any_depth_can_be_copied(depth: int) -> None:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    delivered = delivered_with(Basic.Properties(message_id="id", headers={"theirs": deep}))
    message = headers.message_of(delivered, "auth")

    copy = copies.copy_properties(delivered, message, frame_size=131_072)

    assert copy.headers is not None
    assert copy.headers["lightbus-headers-dropped"] is True
