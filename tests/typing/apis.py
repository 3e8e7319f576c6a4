"""The events that the type checkers are shown."""

from __future__ import annotations

from datetime import datetime

import attrs

import lightbus
from lightbus import Api, Event, event


@attrs.frozen
class PasswordChanged:
    """Someone chose another password."""

    username: str
    at: datetime | None = None


class AuthApi(Api):
    @event
    def user_created(self, *, username: str, email: str, at: datetime | None = None) -> None:
        """Someone has an account now."""

    @event
    def user_renamed(self, old: str, new: str) -> None:
        """Someone has another name now."""

    password_changed = Event(PasswordChanged)

    user_deleted = Event(parameters=("username",))

    class Meta:
        name = "auth"


bus = lightbus.create()
