"""Chooses the number of a new channel."""

from __future__ import annotations

import itertools
import weakref

from aiormq.abc import AbstractConnection

from lightbus_rabbitmq.driver.errors import NoFreeChannel

# A channel number has 16 bits (AMQP 0-9-1, section 4.2.3).
_MAX_CHANNELS = (1 << 16) - 1

# The number of the channel that was opened last on each connection
_last_numbers: weakref.WeakKeyDictionary[AbstractConnection, int] = weakref.WeakKeyDictionary()


def free_channel_number(connection: AbstractConnection) -> int:
    """Return the number that was free for longest.

    When the broker closes a channel, the driver frees the number before it has answered. The broker
    closes the connection if a channel with the same number is opened before the answer.

    Raises:
        NoFreeChannel: All channels that the broker allows are in use.
    """
    last = _last_numbers.get(connection, 0)
    limit = connection.connection_tune.channel_max or _MAX_CHANNELS
    numbers = itertools.chain(range(last + 1, limit + 1), range(1, last + 1))
    number = next((number for number in numbers if number not in connection.channels), None)
    if number is None:
        raise NoFreeChannel(limit)
    _last_numbers[connection] = number
    return number
