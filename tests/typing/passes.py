"""What type checkers let pass. They read this; it does not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

from apis import AuthApi, bus

from lightbus import EventMessage, OnError
from lightbus.events import Event

auth = bus[AuthApi]


def fire() -> None:
    assert_type(auth.user_created.fire(username="adam", email="a@b.c"), EventMessage)
    auth.user_created.fire(username="adam", email="a@b.c", at=datetime.now(UTC))
    auth.user_renamed.fire("adam", new="eve")
    auth.password_changed.fire(username="adam")


async def fire_async() -> None:
    message = await auth.user_created.fire_async(username="adam", email="a@b.c")
    assert_type(message, EventMessage)


def fire_what_has_no_types() -> None:
    auth.user_deleted.fire(username="adam")
    bus.auth.user_created.fire(username="adam", email="a@b.c")


def takes_all(username: str, email: str, at: datetime | None = None) -> None: ...
async def takes_all_async(username: str, email: str, at: datetime | None = None) -> None: ...
def takes_one(username: str, **others: Any) -> None: ...
def takes_the_message(message: EventMessage, *, username: str, **others: Any) -> None: ...


class Handlers:
    def method(self, *, email: str, **_: object) -> None: ...


def listen() -> None:
    auth.user_created.listen(takes_all, listener_name="a", on_error=OnError.RETRY, concurrency=2)
    auth.user_created.listen(takes_all_async, listener_name="b")
    auth.user_created.listen(takes_one, listener_name="c")
    auth.user_created.listen(takes_the_message, listener_name="d")
    auth.user_created.listen(Handlers().method, listener_name="e")
    auth.user_deleted.listen(takes_one, listener_name="f")
    # Handlers that name only some of the fields, without `**others`, are taken here.
    bus.auth.user_created.listen(lambda username: None, listener_name="g")


def look() -> None:
    name: str = AuthApi.user_created.name
    declared: Event[...] = AuthApi.user_deleted
    assert_type(declared.description + name, str)


def listen_on_the_client() -> None:
    bus.client.listen_for_event("auth", "user_created", takes_all, listener_name="h")
    bus.client.listen_for_events([("auth", "user_deleted")], takes_one, concurrency=2)


@bus.client.every(minutes=5, on_error=OnError.ACKNOWLEDGE_AND_LOG)
@bus.client.schedule("30 4 * * *", timezone=UTC, also_run_immediately=True)
def scheduled() -> str:
    return "done"


def call_a_scheduled_function() -> None:
    assert_type(scheduled(), str)
