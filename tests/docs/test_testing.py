"""docs/testing.rst, run: by pytest, as the page says."""

from __future__ import annotations

import pytest

from docs.conftest import Shell
from docs.pages import Page

PAGE = Page("testing")
BUS = """
import lightbus
from lightbus import Api, Event

bus = lightbus.create(service_name="shop")


class AuthApi(Api):
    user_created = Event(parameters=("username", "email"))

    class Meta:
        name = "auth"


class MailApi(Api):
    sent = Event(parameters=("to",))

    class Meta:
        name = "mail"


def welcome(email):
    bus.mail.sent.fire(to=email)


bus.client.register_api(AuthApi)
bus.client.register_api(MailApi)
bus.auth.user_created.listen(welcome, listener_name="welcome")
"""
VIEWS = """
from shop.bus import bus


def sign_up(username, email):
    bus.auth.user_created.fire(username=username, email=email)
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """In the folder of a service that is set up as the page says."""
    (shell.folder / "bus.py").write_text(BUS)
    (shell.folder / "pytest.ini").write_text(PAGE.block("[pytest]"))
    return shell


def test_tests_of_the_bus_of_a_program_pass(shell: Shell) -> None:
    (shell.folder / "shop").mkdir()
    (shell.folder / "shop" / "bus.py").write_text(BUS)
    (shell.folder / "shop" / "views.py").write_text(VIEWS)
    (shell.folder / "test_shop.py").write_text(PAGE.block("# test_shop.py"))

    assert "2 passed" in shell.run("python -m pytest -W error")


def test_a_test_of_a_new_bus_passes(shell: Shell) -> None:
    given = f"from bus import AuthApi, welcome\n\n\n{PAGE.block('recording_bus')}"
    (shell.folder / "test_listener.py").write_text(given)

    assert "1 passed" in shell.run("python -m pytest -W error")
