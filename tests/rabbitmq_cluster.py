"""A RabbitMQ cluster of the tests' own: three private nodes that know each other."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.parse import quote

from rabbitmq_node import NodeFailed, RabbitMQNode
from rabbitmq_port_mapper import PortMapper
from rabbitmq_server import RequestRefused

T = TypeVar("T")

SIZE = 3
TIMEOUT = 60.0
POLL_INTERVAL = 0.1

ISOLATE = "begin erlang:set_cookie(N, 'of another cluster'), erlang:disconnect_node(N) end"
REJOIN = "begin erlang:set_cookie(N, '{cookie}'), net_kernel:connect_node(N) end"


class RabbitMQCluster:
    """Three nodes, with their files in `folder`. Its methods block, as those of a node do."""

    def __init__(self, folder: Path) -> None:
        self._cookie = secrets.token_hex(16)
        self._port_mapper = PortMapper(folder)
        self._isolated: RabbitMQNode | None = None
        self.nodes = [
            RabbitMQNode(
                folder / f"node-{number}", cookie=self._cookie, port_mapper=self._port_mapper
            )
            for number in range(SIZE)
        ]
        for node in self.nodes:
            node.settings |= {
                "cluster_formation.peer_discovery_backend": "classic_config",
                # The first one founds the cluster, for nodes that look for each other lose time.
                "cluster_formation.classic_config.nodes.1": self.nodes[0].name,
                # Without it, nodes that keep their metadata in Mnesia (before 4.3)
                # stay apart after a partition, each with its own idea of what there is.
                "cluster_partition_handling": "pause_minority",
            }

    # Its life

    def start(self) -> None:
        """Start all nodes, and wait until each sees all the others."""
        self._port_mapper.start()
        first, *others = self.nodes
        first.start()
        with ThreadPoolExecutor() as threads:
            list(threads.map(RabbitMQNode.start, others))
            self.wait_until_whole()
            # Asked for a virtual host before that, a node may wait for another one for ever.
            list(threads.map(lambda node: node.ctl("await_online_nodes", str(SIZE)), self.nodes))

    def kill(self) -> None:
        """End all nodes at once."""
        for node in self.nodes:
            node.kill()
        self._port_mapper.kill()

    def wait_until_whole(self) -> None:
        """Wait until every node sees all the others."""
        _wait_until(lambda: all(self._seen_by(node) == SIZE for node in self.nodes))

    def _seen_by(self, node: RabbitMQNode) -> int:
        with contextlib.suppress(OSError, RequestRefused):
            return sum(bool(found["running"]) for found in node.api("GET", "nodes"))
        return 0

    # What is in it

    def create_vhost(self, name: str) -> None:
        """Create a virtual host, and wait until it runs on all nodes.

        A cluster that was just formed may need to be asked twice.
        """

        def create() -> bool:
            with contextlib.suppress(OSError, RequestRefused):
                self.nodes[0].create_vhost(name)
                return True
            return False

        path = f"vhosts/{quote(name, safe='')}"

        def runs() -> bool:
            # Where a node learned of it too early to start it, it is told to.
            with contextlib.suppress(OSError, RequestRefused):
                states = self.nodes[0].api("GET", path)["cluster_state"]
                idle = [one for one in self.nodes if states.get(one.name) != "running"]
                for node in idle:
                    self.nodes[0].api("POST", f"{path}/start/{node.name}")
                return not idle
            return False

        _wait_until(create)
        _wait_until(runs)

    def urls(self, vhost: str = "/", *, first: RabbitMQNode | None = None) -> list[str]:
        """Return the URLs of all nodes, that of `first` before the others."""
        nodes = sorted(self.nodes, key=lambda node: node is not first)
        return [node.url(vhost) for node in nodes]

    def leader_of(self, queue: str, vhost: str = "/") -> RabbitMQNode:
        """Return the node that leads a quorum queue, once there is one that runs."""
        path = f"queues/{quote(vhost, safe='')}/{quote(queue, safe='')}"

        def leader() -> RabbitMQNode | None:
            for asked in self.reachable:
                with contextlib.suppress(OSError, RequestRefused):
                    name = asked.api("GET", path).get("leader")
                    return next((node for node in self.reachable if node.name == name), None)
            return None

        return _wait_until(leader)

    @property
    def reachable(self) -> list[RabbitMQNode]:
        """The nodes that run and are not parted from the others."""
        return [node for node in self.nodes if node.is_running and node is not self._isolated]

    # Faults

    def kill_leader(self, queue: str, vhost: str = "/") -> RabbitMQNode:
        """Kill the node that leads a queue, and return it. Its `start()` brings it back.

        A queue younger than `NEW_QUEUES_ARE_SAVED_AFTER` may not survive that on this node.
        """
        leader = self.leader_of(queue, vhost)
        leader.kill()
        return leader

    def partition(self, node: RabbitMQNode) -> None:
        """Part a node from the two others, which still have each other, until `heal()`.

        Clients reach all three. The nodes' own connections are closed, and not made again, because
        the one no longer knows the cookie of the others.
        """
        self._isolated = node
        self._tell(node, ISOLATE)

    def heal(self) -> None:
        """Let the node that was parted have the others again, and wait until it does."""
        if self._isolated is not None:
            self._tell(self._isolated, REJOIN.format(cookie=self._cookie))
            self._isolated = None
            self.wait_until_whole()

    def mend(self) -> None:
        """Start what was killed, heal, and wait until every node sees all the others."""
        for node in self.nodes:
            if not node.is_running:
                node.start()
        self.heal()
        self.wait_until_whole()

    def _tell(self, node: RabbitMQNode, each: str) -> None:
        others = ", ".join(f"'{other.name}'" for other in self.nodes if other is not node)
        node.ctl("eval", f"[{each} || N <- [{others}]].")


def _wait_until(asked: Callable[[], T | None]) -> T:
    """Return what `asked` returns once that is true."""
    deadline = time.monotonic() + TIMEOUT
    while not (answer := asked()):
        if time.monotonic() > deadline:
            raise NodeFailed(f"The cluster is not as it should be in {TIMEOUT} s.")
        time.sleep(POLL_INTERVAL)
    return answer


@contextlib.contextmanager
def running_cluster() -> Iterator[RabbitMQCluster]:
    """A cluster that runs for the length of a `with` block and then leaves nothing behind."""
    with TemporaryDirectory(prefix="lightbus-rabbitmq-") as folder:
        cluster = RabbitMQCluster(Path(folder))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
