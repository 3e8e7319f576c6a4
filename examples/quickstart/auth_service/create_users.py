"""``python create_users.py NAME ...`` fires an event for each name, in synchronous code."""

import sys

from bus import bus

for name in sys.argv[1:]:
    event = bus.auth.user_created.fire(username=name, email=f"{name}@example.com")
    print(f"fire() returned: {event.canonical_name} of {name} is stored")
