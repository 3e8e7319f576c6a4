"""Errors, as they go from one process to another."""

from __future__ import annotations

import copy
import pickle

import pytest

from lightbus.exceptions import InvalidEventArguments, LightbusException, SendOutcomeUnknown


@pytest.mark.parametrize(
    "error",
    [
        SendOutcomeUnknown("3f6c", 1.5),
        InvalidEventArguments("auth.user_created", missing=["email"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_can_be_pickled(error: LightbusException) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Refused: closed to this user..", "Refused: closed to this user."),
        ("It says 'no.'.. Try again.", "It says 'no.'. Try again."),
        ("It waits...", "It waits..."),
        ("The folder .. is not there.", "The folder .. is not there."),
        ("../events.db cannot be read.", "../events.db cannot be read."),
    ],
)
def test_a_sentence_of_an_error_ends_with_one_full_stop(text: str, shown: str) -> None:
    assert str(LightbusException(text)) == shown
