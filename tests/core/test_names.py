"""Which names can be used, and which placeholders they may hold."""

from __future__ import annotations

import contextlib
import os
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.exceptions import InvalidName
from lightbus.names import checked_name, filled_in, usable_name


@pytest.mark.parametrize("name", ["auth", "help_desk.ticket", "a-b", "x" * 120, "/", "a@b+c,d"])
def test_a_name_is_given_back_unchanged(name: str) -> None:
    assert checked_name("API", name) == name


@pytest.mark.parametrize(
    "name", [None, 3, b"auth", "", "a:b", "a b", "a\n", "*", "a#", "\x00", "größe", "<lambda>"]
)
def test_a_name_that_brokers_can_not_use_is_refused(name: object) -> None:
    with pytest.raises(InvalidName, match="Invalid service name") as raised:
        checked_name("service", name)

    assert (raised.value.kind, raised.value.name) == ("service", name)


@given(st.text())
def test_a_name_that_is_taken_has_no_letter_that_brokers_give_a_meaning_to(name: str) -> None:
    with contextlib.suppress(InvalidName):
        taken = checked_name("service", name)
        assert 0 < len(taken) <= 120
        assert taken.isascii()
        assert not set(taken) & set(" :*#\t\r\n\x00")


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidName, match="longer than 120 characters"):
        checked_name("API", "x" * 121)


@given(st.text())
def test_any_text_can_be_made_usable(text: str) -> None:
    assert not text or checked_name("service", usable_name(text))


def test_the_host_and_the_process_can_be_named() -> None:
    assert filled_in("{hostname}-{pid}") == f"{socket.gethostname()}-{os.getpid()}"


@pytest.mark.parametrize("length", [4, 8, 16])
def test_chance_gives_letters_and_digits(length: int) -> None:
    made = filled_in(f"{{random{length}}}")

    assert re.fullmatch(f"[a-z0-9]{{{length}}}", made)
    assert made != filled_in(f"{{random{length}}}")


def test_a_friendly_name_is_two_words() -> None:
    assert re.fullmatch("[a-z]+-[a-z]+", filled_in("{friendly}"))


def test_an_unknown_placeholder_is_named_with_the_near_one() -> None:
    with pytest.raises(InvalidName, match=r"\{hostnam\} is not known. Did you mean 'hostname'"):
        filled_in("{hostnam}")


@pytest.mark.parametrize("template", ["{", "}", "{0}", "{pid.real.x}", "{}"])
def test_a_brace_that_is_no_placeholder_is_refused(template: str) -> None:
    with pytest.raises(InvalidName, match=r"braces do not match|is not known"):
        filled_in(template)
