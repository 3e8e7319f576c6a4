"""Sends a mail to each new user."""

import lightbus

bus = lightbus.create(service_name="mail")


def welcome(username: str, email: str):
    print(f"To {email}: welcome, {username}!", flush=True)


bus.auth.user_created.listen(welcome, listener_name="welcome")
