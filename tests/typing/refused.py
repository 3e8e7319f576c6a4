"""What type checkers refuse. They read this; it does not run.

A line that one lets pass is an error, for then its `ignore` is unused.
"""

from __future__ import annotations

from apis import AuthApi, bus

auth = bus[AuthApi]


def fire() -> None:
    auth.user_created.fire(username="adam")  # type: ignore[call-arg]  # pyright: ignore
    auth.user_created.fire(username="adam", email=1)  # type: ignore[arg-type]  # pyright: ignore
    auth.user_created.fire(username="adam", email="a@b.c", age=3)  # type: ignore[call-arg]  # pyright: ignore
    auth.user_created.fire("adam", "a@b.c")  # type: ignore[call-arg]  # pyright: ignore
    auth.user_renamed.fire("adam")  # type: ignore[call-arg]  # pyright: ignore
    auth.password_changed.fire(name="adam")  # type: ignore[call-arg]  # pyright: ignore
    auth.password_changed.fire(username=None)  # type: ignore[arg-type]  # pyright: ignore
    auth.user_vanished.fire(username="adam")  # type: ignore[attr-defined]  # pyright: ignore
    AuthApi.user_created.fire(username="adam", email="a@b.c")  # type: ignore[attr-defined]  # pyright: ignore


async def fire_async() -> None:
    await auth.user_created.fire_async(username="adam")  # type: ignore[call-arg]  # pyright: ignore


def wants_another_field(username: str, phone: str) -> None: ...
def wants_another_type(username: int, **others: object) -> None: ...
def names_only_some(username: str) -> None: ...


def listen() -> None:
    auth.user_created.listen(wants_another_field, listener_name="a")  # type: ignore[arg-type]  # pyright: ignore
    auth.user_created.listen(wants_another_type, listener_name="b")  # type: ignore[arg-type]  # pyright: ignore
    auth.user_created.listen(names_only_some, listener_name="c")  # type: ignore[arg-type]  # pyright: ignore
    auth.user_created.listen(print, listener_name=1)  # type: ignore[call-overload]  # pyright: ignore


def ask_for_what_is_no_api() -> None:
    bus[str]  # type: ignore[type-var]  # pyright: ignore
    bus["auth"]  # type: ignore[index]  # pyright: ignore


def add_with_a_wrong_option() -> None:
    bus.client.listen_for_event("auth", "user_created", print, name="a")  # type: ignore[call-arg]  # pyright: ignore
    bus.client.every(minute=5)  # type: ignore[call-arg]  # pyright: ignore
    bus.client.schedule("30 4 * * *", on_error="shutdown")  # type: ignore[arg-type]  # pyright: ignore
