"""``python update_users.py NAME ...`` fires an event for each name, in asynchronous code."""

import asyncio
import sys

from bus import bus


async def update(name: str) -> None:
    event = await bus.auth.user_updated.fire_async(username=name, new_email=f"{name}@example.org")
    print(f"fire_async() returned: {event.canonical_name} of {name} is stored")


async def main() -> None:
    await asyncio.gather(*(update(name) for name in sys.argv[1:]))
    await bus.client.close_async()


asyncio.run(main())
