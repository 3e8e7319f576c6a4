"""`EventMessage`."""

from __future__ import annotations

import pytest

from core.apis import AuditApi, AuthApi, TicketApi
from core.support import MakeBus
from lightbus import Bus


@pytest.fixture
def bus(make_bus: MakeBus) -> Bus:
    """A bus that knows the APIs of the tests."""
    return make_bus(AuthApi, TicketApi, AuditApi)


async def test_each_event_has_its_own_id(bus: Bus) -> None:
    fired = [await bus.auth.user_deleted.fire_async(username="ann") for _ in range(3)]

    assert len({message.id for message in fired}) == 3


async def test_the_repr_of_a_message_does_not_show_its_parameters(bus: Bus) -> None:
    fired = await bus.auth.user_deleted.fire_async(username="hunter2")

    assert "hunter2" not in repr(fired)
    assert fired.id in repr(fired)
