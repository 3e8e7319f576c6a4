"""`IncomingMessage`: puts a message together from the frames in which it arrives."""

from __future__ import annotations

from typing import cast

from aiormq.abc import AbstractChannel, DeliveredMessage, FrameType
from aiormq.exceptions import InvalidFrameError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader


class IncomingMessage:
    """A message of which some frames have not arrived.

    Args:
        method: The first frame.
    """

    def __init__(self, method: Basic.Deliver | Basic.Return) -> None:
        self.method = method
        self._header: ContentHeader | None = None
        self._bodies: list[bytes] = []
        self._missing_bytes = 0

    def add(self, frame: FrameType) -> bool:
        """Add the next frame; return whether it is the last.

        Raises:
            InvalidFrameError: The frame cannot be a part of a message (AMQP 0-9-1, section 4.2.6).
        """
        if isinstance(frame, ContentBody) and self._header is not None:
            self._bodies.append(frame.value)
            self._missing_bytes -= len(frame.value)
        elif isinstance(frame, ContentHeader) and self._header is None:
            self._header = frame
            self._missing_bytes = frame.body_size
        else:
            raise InvalidFrameError(frame)
        return self._missing_bytes <= 0

    def message(self, channel: AbstractChannel) -> DeliveredMessage:
        """Return the message, after its last frame was added."""
        return DeliveredMessage(
            delivery=self.method,
            header=cast("ContentHeader", self._header),
            body=self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies),
            channel=channel,
        )
