"""`EventMessage`: one fired event, as the sender sends it and listeners receive it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import attrs

from lightbus.encoding import json_codec


def _new_id() -> str:
    # A UUID of version 4 (RFC 9562, section 5.4). The module `uuid` takes three times as long.
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _now() -> datetime:
    return datetime.now(UTC)


@attrs.frozen(kw_only=True)
class EventMessage:
    """One fired event.

    Attributes:
        api_name: The API's name, for example ``"auth"``.
        event_name: The event's name, for example ``"user_created"``.
        body: The parameters as a JSON object (RFC 8259), in UTF-8. `repr` does not show it, because
            it may contain secrets.
        id: The unique id of the event, the same on every delivery. By default a UUID of version 4
            (RFC 9562).
        version: The version of the API.
        fired_at: When the event was fired, in UTC, by the clock of the sender.
        service_name: The service that fired the event; empty if the sender did not state it.
        traceparent: The trace of the event, as in the HTTP header of that name (W3C Trace Context,
            section 3.2); empty if there is none.
    """

    api_name: str
    event_name: str
    body: bytes = attrs.field(repr=False)
    id: str = attrs.field(factory=_new_id)
    version: int = 1
    fired_at: datetime = attrs.field(factory=_now)
    service_name: str = ""
    traceparent: str = ""

    @classmethod
    def create(
        cls, api_name: str, event_name: str, kwargs: Mapping[str, Any], **others: Any
    ) -> EventMessage:
        """Create a message and encode its parameters as JSON.

        Args:
            api_name: The name of the API.
            event_name: The name of the event.
            kwargs: The parameters of the event.
            others: Other attributes, by name.

        Raises:
            UnencodableValue: A value cannot be encoded as JSON.
        """
        return cls(
            api_name=api_name, event_name=event_name, body=json_codec.encode(kwargs), **others
        )

    @property
    def canonical_name(self) -> str:
        """The names of the API and the event, for example ``"auth.user_created"``."""
        return f"{self.api_name}.{self.event_name}"

    @cached_property
    def kwargs(self) -> dict[str, Any]:
        """The parameters of the event, as JSON values.

        Raises:
            UndecodableEvent: The body is not a JSON object.
        """
        return json_codec.decode(self.body)
