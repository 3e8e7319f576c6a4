"""`Status`: where the events of a service's listeners are."""

from __future__ import annotations

import contextlib
from collections import Counter

import attrs

from lightbus.client import BusClient
from lightbus.dead_letters import DeadLetters, Filter
from lightbus.exceptions import NotDeclared
from lightbus.listener import Listener
from lightbus.transport import SubscriptionStats

# Looking through more dead letters than this takes long, and is left to those who want to.
_MOST_LETTERS = 1000


@attrs.frozen(kw_only=True)
class ListenerStatus:
    """Where the events of one listener on one API are.

    Attributes:
        name: The listener's name.
        api_name: The API.
        stats: What the broker tells; None where it holds nothing for the listener yet.
        dead: How many it gave up; None where the service has more than 1,000 dead letters, which
            are too many to look at them all.
    """

    name: str
    api_name: str
    stats: SubscriptionStats | None
    dead: int | None


class Status:
    """Looks where the events of the listeners of a bus are."""

    def __init__(self, client: BusClient) -> None:
        self._client = client

    async def listeners(self) -> list[ListenerStatus]:
        """Return where the events of each listener are now.

        Raises:
            TransportError: A broker did not tell.
        """
        dead = await self._dead()
        return [
            ListenerStatus(
                name=listener.name,
                api_name=listener.api_name,
                stats=await self._stats(listener),
                dead=None if dead is None else dead[listener.api_name, listener.name],
            )
            for listener in self._client.listeners
        ]

    async def _stats(self, listener: Listener) -> SubscriptionStats | None:
        transport = await self._client.opened_transport(listener.api_name)
        subscription = listener.subscription(self._client.config.service_name)
        try:
            return await transport.stats(subscription)
        except NotDeclared:
            return None

    async def _dead(self) -> Counter[tuple[str, str]] | None:
        found: Counter[tuple[str, str]] = Counter()
        letters = DeadLetters(self._client).matching(Filter())
        async with contextlib.aclosing(letters):
            async for letter in letters:
                found[letter.message.api_name, letter.failure.listener] += 1
                if found.total() > _MOST_LETTERS:
                    return None
        return found
