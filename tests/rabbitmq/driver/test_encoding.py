"""An event that a template encodes has the same frames as one that is encoded on its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus import EventMessage
from lightbus_rabbitmq import headers
from lightbus_rabbitmq.driver.encoding import EventEncoder, encode, encode_publish

FRAME_SIZE = 4096

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
@pytest.mark.parametrize("traceparent", ["", f"00-{'a' * 32}-{'b' * 16}-01", "of another form"])
@pytest.mark.parametrize("is_mandatory", [False, True])
def test_an_event_has_the_same_frames_with_and_without_a_template(
    event_id: str,
    fired_at: datetime,
    service_name: str,
    body: bytes,
    traceparent: str,
    *,
    is_mandatory: bool,
) -> None:
    message = EventMessage(
        api_name="auth",
        event_name="user_created",
        body=body,
        id=event_id,
        fired_at=fired_at,
        service_name=service_name,
        traceparent=traceparent,
    )
    try:
        plain = encode_publish(
            "lightbus:auth", "user_created", is_mandatory=is_mandatory, channel_number=7
        ) + encode(headers.properties_of(message), body, channel_number=7, frame_size=FRAME_SIZE)
    except ValueError:
        return  # the id is too long for AMQP

    assert EventEncoder(7, FRAME_SIZE).encode(message, is_mandatory=is_mandatory) == plain
