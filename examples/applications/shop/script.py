"""Fires an event from a script.

python script.py adam adam@example.com
"""

import sys

from bus import AuthApi, bus

message = bus[AuthApi].user_created.fire(username=sys.argv[1], email=sys.argv[2])
print(message.id)
