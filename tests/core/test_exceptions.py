"""The exceptions: their tree, their text, and pickling."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from lightbus import exceptions
from lightbus.exceptions import (
    EventNotFound,
    InvalidEventArguments,
    LightbusException,
    QueueInUse,
    SendOutcomeUnknown,
)


def tree_below(class_: type[LightbusException], depth: int = 0) -> list[tuple[int, str]]:
    """Return the depth and the name of a class and of all that derive from it in its module."""
    # A transport that another test has imported may derive some of its own.
    derived = [one for one in class_.__subclasses__() if one.__module__ == class_.__module__]
    below = [line for one in derived for line in tree_below(one, depth + 1)]
    return [(depth, class_.__name__), *below]


def test_the_documented_tree_has_every_exception() -> None:
    found = re.findall(r"^    ([│├└─ ]*)(\w+)", exceptions.__doc__ or "", re.MULTILINE)

    documented = [(len(indent) // 4, name) for indent, name in found]

    assert sorted(documented) == sorted(tree_below(LightbusException))
    assert len(documented) <= 30


@pytest.mark.parametrize(
    "error",
    [
        SendOutcomeUnknown("3f6c", 1.5),
        EventNotFound("API 'aut' is not registered.", api_name="aut"),
        QueueInUse("listener 'mail' on auth", events=2),
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
