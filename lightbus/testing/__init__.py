"""What programs and transports import in their own tests."""

from lightbus.testing.recording import RecordingBus, recording

__all__ = ["RecordingBus", "recording"]
