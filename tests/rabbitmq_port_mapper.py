"""The Erlang port mapper (epmd), which tells the nodes of a cluster where the others are."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ports import free_ports, is_open
from process_group import ProcessGroup
from rabbitmq_installation import NodeFailed, chosen_installation

START_TIMEOUT = 10.0
POLL_INTERVAL = 0.05


class PortMapper:
    """One of the tests' own, on 127.0.0.1 only. A node by itself needs one, too."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        self._group: ProcessGroup | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._group is not None:
            return
        epmd = chosen_installation(os.environ).epmd
        self._group = ProcessGroup()
        self._group.start(
            [*epmd, "-address", "127.0.0.1", "-port", str(self.port)],
            folder=self._folder,
            environment={k: v for k, v in os.environ.items() if not k.startswith("ERL_")},
            log=self._folder / "epmd.log",
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not is_open(self.port):
            if time.monotonic() > deadline:
                self.kill()
                raise NodeFailed(f"The Erlang port mapper is not up in {START_TIMEOUT} s.")
            time.sleep(POLL_INTERVAL)

    def kill(self) -> None:
        """End it, if it runs."""
        if self._group is not None:
            self._group.kill()
        self._group = None
