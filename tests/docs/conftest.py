"""Directories with a service, in which the commands of a page run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import lightbus
from docs.terminal import Terminal, environment_of_a_user, run
from lightbus import Api, Event
from lightbus.testing import RecordingBus, recording

SERVICE = '''
import lightbus
from lightbus import Api, OnError, event

bus = lightbus.create(service_name="shop")


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, email: str) -> None:
        """A user has signed up."""

    class Meta:
        name = "auth"


def welcome(username: str) -> None:
    print(f"Welcome, {username}!")


def audit() -> None:
    raise KeyError("name")


bus.client.register_api(AuthApi)
bus.auth.user_created.listen(welcome, listener_name="welcome")
bus.auth.user_created.listen(
    audit, listener_name="audit", on_error=OnError.ACKNOWLEDGE_AND_LOG
)
'''
FIRE = "lightbus fire auth.user_created username=adam email=adam@example.com"


class Shell:
    """Runs commands in the directory of a service.

    Attributes:
        folder: The directory.
        environment: The environment variables.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment_of_a_user(folder)

    def run(self, command: str, *, exit_code: int = 0) -> str:
        """Run commands, check the exit code, and return their output."""
        code, printed = run(command, self.folder, self.environment)
        assert code == exit_code, printed
        return printed

    def start(self, command: str) -> Terminal:
        """Start a command that runs until it is stopped."""
        return Terminal(command, self.folder, self.environment)

    @contextlib.contextmanager
    def serving(self, command: str = "lightbus run") -> Iterator[Terminal]:
        """Run the service for the duration of the block; yield its terminal when it is ready."""
        with self.start(command) as worker:
            worker.wait_for("Ready.")
            yield worker
            worker.stop()

    def fire_and_fail(self) -> str:
        """Fire an event that becomes a dead letter; return the event's id."""
        with self.serving() as worker:
            event_id = self.run(FIRE).strip()
            worker.wait_for("becomes a dead letter")
        return event_id

    def use(self, transport: str, file: str = "lightbus.yaml", **settings: str) -> None:
        """Write a configuration file that uses this transport for all APIs."""
        config = {"apis": {"default": {"event_transport": {transport: settings}}}}
        (self.folder / file).write_text(yaml.safe_dump(config))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in the directory of a service that welcomes new users and fails to audit them."""
    (tmp_path / "bus.py").write_text(SERVICE)
    return Shell(tmp_path)


class AuthApi(Api):
    """The events that pages fire."""

    user_created = Event(parameters=("username", "email"))
    user_deleted = Event(parameters=("username",))

    class Meta:
        name = "auth"


class MailApi(Api):
    """The events that handlers on pages fire."""

    sent = Event(parameters=("to",))

    class Meta:
        name = "mail"


@pytest.fixture
def bus() -> Iterator[RecordingBus]:
    """The bus of a page. It records events, and a test runs the handlers."""
    with recording(lightbus.create({}, service_name="shop")) as recorded:
        recorded.client.register_api(AuthApi)
        recorded.client.register_api(MailApi)
        yield recorded
        recorded.client.close()
