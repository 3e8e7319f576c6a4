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
def test_an_error_is_the_same_in_another_process(error: LightbusException) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
