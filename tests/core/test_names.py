"""Which names can be used, and which placeholders they may hold."""

from __future__ import annotations

import contextlib
import os
import re
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightbus.exceptions import InvalidName
from lightbus.names import MAX_LENGTH, check_name, fill_placeholders, to_valid_name


@pytest.mark.parametrize("name", ["auth", "help_desk.ticket", "a-b", "x" * 75, "/", "a@b+c,d"])
def test_a_valid_name_is_returned_unchanged(name: str) -> None:
    assert check_name("API", name) == name


@pytest.mark.parametrize(
    "name", [None, 3, b"auth", "", "a:b", "a b", "a\n", "*", "a#", "\x00", "größe", "<lambda>"]
)
def test_a_name_that_brokers_refuse_is_refused(name: object) -> None:
    with pytest.raises(InvalidName, match="Invalid service name") as raised:
        check_name("service", name)

    assert (raised.value.kind, raised.value.name) == ("service", name)


@given(st.text())
def test_an_accepted_name_has_no_character_with_a_meaning_for_brokers(name: str) -> None:
    with contextlib.suppress(InvalidName):
        taken = check_name("service", name)
        assert 0 < len(taken) <= MAX_LENGTH
        assert taken.isascii()
        assert not set(taken) & set(" :*#\t\r\n\x00")


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidName, match="longer than 75 characters"):
        check_name("API", "x" * 76)


def test_the_name_of_a_process_may_contain_the_full_name_of_a_host() -> None:
    assert check_name("process", "x" * 120)
    with pytest.raises(InvalidName, match="longer than 120 characters"):
        check_name("process", "x" * 121)


@given(st.text(st.characters(exclude_categories=[])))
@example("\udcff")
def test_any_text_can_be_made_a_name(text: str) -> None:
    assert not text or check_name("service", to_valid_name(text))


@pytest.mark.parametrize("text", ["shop", "my-shop", "x" * 75])
def test_a_text_that_is_a_name_is_unchanged(text: str) -> None:
    assert to_valid_name(text) == text


@pytest.mark.parametrize(
    "texts",
    [
        ("商店", "仓库", "магазин", "склады", "מחסן"),
        ("my shop", "my-shop", "my_shop", "my:shop", "my  shop"),
        ("x" * 75, "x" * 76, "x" * 76 + "y"),
        ("größe", "grösse", "gr--e", "grüße"),
    ],
)
def test_different_texts_give_different_names(texts: tuple[str, ...]) -> None:
    assert len({to_valid_name(text) for text in texts}) == len(texts)


def test_a_name_made_of_a_text_resembles_it_and_is_always_the_same() -> None:
    assert to_valid_name("My shop (new)") == "My-shop--new-3d47d2da"
    assert to_valid_name("gr\u00f6\u00dfe") == to_valid_name("gro\u0308\u00dfe")


def test_placeholders_give_the_host_and_the_process() -> None:
    assert fill_placeholders("{hostname}-{pid}") == f"{socket.gethostname()}-{os.getpid()}"


@pytest.mark.parametrize("length", [4, 8, 16])
def test_random_placeholders_give_letters_and_digits(length: int) -> None:
    made = fill_placeholders(f"{{random{length}}}")

    assert re.fullmatch(f"[a-z0-9]{{{length}}}", made)
    assert made != fill_placeholders(f"{{random{length}}}")


def test_a_friendly_name_is_two_words() -> None:
    assert re.fullmatch("[a-z]+-[a-z]+", fill_placeholders("{friendly}"))


def test_an_unknown_placeholder_is_named_with_the_near_one() -> None:
    with pytest.raises(InvalidName, match=r"\{hostnam\}\. Did you mean 'hostname'"):
        fill_placeholders("{hostnam}")


@pytest.mark.parametrize("template", ["{", "}", "{0}", "{pid.real.x}", "{}"])
def test_a_brace_without_a_placeholder_is_refused(template: str) -> None:
    with pytest.raises(InvalidName, match="placeholder"):
        fill_placeholders(template)
