"""Fires events, and writes down what became of each: ``python -m faults.producer COUNT RATE``.

SIGUSR1 has it pause, and SIGUSR2 go on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time

from faults.service import bus, journal
from lightbus.exceptions import SendOutcomeUnknown, TransportError

IN_FLIGHT = 50

# Each so many'th event is one that no handler can handle.
DOOMED = 500


async def fire(count: int, rate: float) -> None:
    """Fire `count` events, at most `rate` a second; 0 is for as many as can be."""
    may_fire = asyncio.Event()
    may_fire.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, may_fire.clear)
    loop.add_signal_handler(signal.SIGUSR2, may_fire.set)
    numbers = iter(range(count))
    pause = IN_FLIGHT / rate if rate else 0.0

    async def fire_some() -> None:
        for number in numbers:
            await may_fire.wait()
            started = time.monotonic()
            await fire_one(number)
            if pause:
                await asyncio.sleep(max(pause - (time.monotonic() - started), 0))

    await asyncio.gather(*(fire_some() for _ in range(IN_FLIGHT)))
    await bus.client.close_async()


async def fire_one(number: int) -> None:
    event_name = "doomed" if number % DOOMED == 0 else "happened"
    message = bus.client.publisher.message("soak", event_name, {"number": number})
    journal.write("firing", message.id)
    try:
        await bus.client.fire_async(message)
    except SendOutcomeUnknown:
        pass
    except TransportError:
        journal.write("refused", message.id)
    else:
        journal.write("fired", message.id)


if __name__ == "__main__":
    # That connections are lost is what is asked for.
    logging.disable(logging.CRITICAL)
    asyncio.run(fire(int(sys.argv[1]), float(sys.argv[2])))
