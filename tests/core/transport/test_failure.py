"""`Failure`: the description of an exception."""

from __future__ import annotations

import pytest

from lightbus.exceptions import CallbackExited, HandlerTimeout, UnexpectedEvent
from lightbus.transport.failure import Failure


class NotPrintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text for this one")


class NotesNotPrintable(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise ValueError("no notes for this one")


@pytest.mark.parametrize("raised", [NotPrintable, NotesNotPrintable])
def test_a_failure_describes_an_exception_that_cannot_describe_itself(
    raised: type[Exception],
) -> None:
    with pytest.raises(raised) as caught:
        raise raised

    failure = Failure.of(
        caught.value, listener="odd", attempt=1, service_name="shop", process_name="p"
    )

    assert failure.error_type == f"core.transport.test_failure.{raised.__name__}"
    # Since 3.13, Python prints a text of its own instead of the notes.
    assert "ValueError" in failure.error_message + failure.traceback


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("no"), "builtins.ValueError"),
        (HandlerTimeout("gather", 60), "lightbus.exceptions.HandlerTimeout"),
        (UnexpectedEvent("gather", "auth.paid"), "lightbus.exceptions.NotListenedFor"),
        (CallbackExited("Hook", "check", SystemExit(1)), "lightbus.exceptions.HookExited"),
    ],
)
def test_the_stored_name_of_an_error_never_changes(error: Exception, name: str) -> None:
    failure = Failure.of(error, listener="odd", attempt=1, service_name="shop", process_name="p")

    assert failure.error_type == name
