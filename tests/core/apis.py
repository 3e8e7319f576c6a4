"""The APIs that the core's tests fire events on."""

from __future__ import annotations

from lightbus import Api, Event, Parameter, WildcardParameter


class AuthApi(Api):
    user_created = Event(parameters=("username", "email"))
    user_deleted = Event(parameters="username")

    class Meta:
        name = "auth"


class TicketApi(Api):
    ticket_created = Event(parameters=("title", Parameter("urgent", bool, default=False)))

    class Meta:
        name = "help_desk.ticket"
        version = 3


class AuditApi(Api):
    anything = Event(parameters=("what", WildcardParameter()))

    class Meta:
        name = "audit"
