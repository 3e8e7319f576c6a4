"""Ports of this machine, for brokers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which Linux takes the ports of outgoing connections. Inside it, a client that
# keeps trying to reach a stopped node could be given the node's own port, and keep it out.
PORTS = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. All are held until the last is found: no two are the same."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            candidate = held.enter_context(socket.socket())
            port = random.choice(PORTS)
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def is_open(port: int) -> bool:
    """Whether someone listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
