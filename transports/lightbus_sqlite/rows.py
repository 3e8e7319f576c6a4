"""Converts events to and from the columns that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lightbus.message import EventMessage


def message_columns(message: EventMessage) -> tuple[Any, ...]:
    """Return the values of the columns of an event."""
    return (
        message.id,
        message.api_name,
        message.event_name,
        message.body,
        message.version,
        message.fired_at.isoformat(),
        message.service_name,
        message.traceparent,
    )


def message_from(columns: Sequence[Any]) -> EventMessage:
    """Return the event whose columns have these values."""
    message_id, api, name, body, version, fired_at, service, traceparent = columns
    return EventMessage(
        id=message_id,
        api_name=api,
        event_name=name,
        body=body,
        version=version,
        fired_at=datetime.fromisoformat(fired_at),
        service_name=service,
        traceparent=traceparent,
    )
