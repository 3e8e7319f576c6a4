"""A real RabbitMQ node of the tests' own, which they may restart, kill and fill as they like.

It shares nothing with a broker that may already run on the machine: its name, ports, Erlang port
mapper (epmd), cookie, home and data are all its own, and it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ports import free_ports
from process_group import ProcessGroup
from rabbitmq_installation import NodeFailed, chosen_installation
from rabbitmq_port_mapper import PortMapper
from rabbitmq_server import RabbitMQServer, RequestRefused

__all__ = ["NEW_QUEUES_ARE_SAVED_AFTER", "NodeFailed", "RabbitMQNode", "running_node"]

START_TIMEOUT = 40.0
STOP_TIMEOUT = 15.0
CTL_TIMEOUT = 30.0
POLL_INTERVAL = 0.05
LOG_TAIL_LINES = 40

# A quorum queue is known by name in a file (Ra's names.dets) that RabbitMQ saves once it was left
# alone for 500 ms. Killed before that, the node comes back with a queue that can be declared but
# never elects a leader and answers nothing, whatever it had confirmed. (Seen on 3.10.8.) Tests wait
# this long, in seconds, between declaring a queue and killing the node.
NEW_QUEUES_ARE_SAVED_AFTER = 1.0

# Distribution on loopback only, and tables sized for tests rather than for a server.
ERLANG_ARGUMENTS = "-kernel inet_dist_use_interface {127,0,0,1}"
SERVER_ARGUMENTS = f"{ERLANG_ARGUMENTS} +S 2:2 +P 65536"

RABBITMQ_CONF = """\
listeners.tcp.local = 127.0.0.1:{amqp_port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
# How old, in milliseconds, the numbers may be that the management API tells.
collect_statistics_interval = 1000
# The default, half a gigabyte of log in memory and on disk, is for a server.
raft.wal_max_size_bytes = 4194304
disk_free_limit.absolute = 50MB
"""

RABBITMQ_TLS_CONF = """\
listeners.ssl.local = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {tls}/ca.pem
ssl_options.certfile = {tls}/server.pem
ssl_options.keyfile = {tls}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class RabbitMQNode(RabbitMQServer):
    """One node, with its files in `folder`. Started again, it has the same ports and the same data.

    Its methods block, `start()` and `stop()` for seconds. Where a test has an event loop to keep
    alive meanwhile, it calls them through `asyncio.to_thread()`.

    Args:
        folder: Below the temporary folder.
        tls: A folder with ca.pem, server.pem and server.key; the node then has a `tls_port`, too,
            and lets in there only whom that authority vouches for.
        settings: More lines of rabbitmq.conf.
        cookie: What it shows to the other nodes of a cluster.
        port_mapper: That of the cluster. A node by itself runs its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tls: Path | None = None,
        settings: Mapping[str, object] | None = None,
        cookie: str | None = None,
        port_mapper: PortMapper | None = None,
    ) -> None:
        amqp_port, management_port, self.tls_port, self._dist_port = free_ports(4)
        super().__init__(("127.0.0.1", amqp_port), ("127.0.0.1", management_port))
        self.folder = folder
        self.name = f"lightbus-{secrets.token_hex(4)}@localhost"
        self.settings = dict(settings or {})
        self._tls = tls
        self._cookie = cookie or secrets.token_hex(16)
        self._port_mapper = port_mapper or PortMapper(folder)
        self._shares_port_mapper = port_mapper is not None
        self._installation = chosen_installation(os.environ)
        self._group: ProcessGroup | None = None
        self._server: subprocess.Popen[bytes] | None = None

    # Its life

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Start the node and wait until it serves AMQP and the management API."""
        if self.is_running:
            raise NodeFailed(f"{self.name} is already running")
        server = self._installation.server
        self.kill()  # what is left of a node that died by itself
        self._write_files()
        try:
            self._port_mapper.start()
            self._group = ProcessGroup()
            self._server = self._group.start(
                server, folder=self.folder, environment=self._environment(), log=self._log
            )
            self._wait_for(self._serves, self._server)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut the node down in good order, or by force where that takes too long.

        RabbitMQ takes about 6 s for it. Where the order does not matter, `kill()` is instant.
        """
        if self._server is not None:
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """End the node at once with SIGKILL, as a crash would. Its data stays.

        All but the newest quorum queues survive: see `NEW_QUEUES_ARE_SAVED_AFTER`.
        """
        if self._group is not None:
            self._group.kill()
        self._group = self._server = None
        if not self._shares_port_mapper:
            self._port_mapper.kill()

    def freeze(self) -> None:
        """Stop the node's process until `thaw()`: it keeps its connections, and says nothing."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have the node go on after `freeze()`."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    # What is in it

    def close_connections(self, vhost: str) -> None:
        """Close, from the broker's side, every connection to `vhost`."""
        # Not by the management API, which hears of a connection up to a second late.
        self.ctl("close_all_connections", "--vhost", vhost, "closed by a test")

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, for what the management API cannot do, such as raising an alarm."""
        result = subprocess.run(
            [*self._installation.ctl, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self._environment(),
            timeout=CTL_TIMEOUT,
            check=False,
        )
        if result.returncode != 0:
            raise NodeFailed(f"rabbitmqctl {' '.join(arguments)}: {result.stdout}{result.stderr}")
        return result.stdout

    # How it is run

    def _environment(self) -> dict[str, str]:
        # What the caller's shell or the machine says about its own broker must not reach ours.
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        files = {
            "HOME": ".",
            "RABBITMQ_CONF_ENV_FILE": "rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": "config",
            "RABBITMQ_MNESIA_BASE": "data",
            "RABBITMQ_LOG_BASE": "log",
            "RABBITMQ_PID_FILE": "pid",
            "ERL_CRASH_DUMP": "erl_crash.dump",
        }
        return {
            **inherited,
            **{name: str(self.folder / file) for name, file in files.items()},
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": SERVER_ARGUMENTS,
            "RABBITMQ_CTL_ERL_ARGS": ERLANG_ARGUMENTS,
            "ERL_EPMD_PORT": str(self._port_mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # The script becomes the node, and does not stay as its parent.
            "detached": "true",
        }

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = RABBITMQ_CONF.format(
            amqp_port=self.amqp_port, management_port=self.management_port
        )
        if self._tls is not None:
            configuration += RABBITMQ_TLS_CONF.format(tls_port=self.tls_port, tls=self._tls)
        configuration += "".join(f"{key} = {value}\n" for key, value in self.settings.items())
        (self.folder / "rabbitmq.conf").write_text(configuration)
        (self.folder / "rabbitmq-env.conf").touch()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(self._cookie)

    def _serves(self) -> bool:
        try:
            # More than any other answer, it takes a node that has come up whole.
            self.api("GET", "overview")
        except (OSError, http.client.HTTPException, RequestRefused):
            return False
        return _speaks_amqp(self.amqp_port)

    def _wait_for(self, is_ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not is_ready():
            if process.poll() is not None:
                raise NodeFailed(f"{self.name} ended with {process.returncode}. {self._log_tail()}")
            if time.monotonic() > deadline:
                raise NodeFailed(f"{self.name} is not up in {START_TIMEOUT} s. {self._log_tail()}")
            time.sleep(POLL_INTERVAL)

    @property
    def _log(self) -> Path:
        return self.folder / "node.log"

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(["The end of its log:", *lines[-LOG_TAIL_LINES:]])


@contextlib.contextmanager
def running_node(
    *, tls: Path | None = None, settings: Mapping[str, object] | None = None
) -> Iterator[RabbitMQNode]:
    """A node that runs for the length of a `with` block and then leaves nothing behind.

    Args:
        tls: A folder with ca.pem, server.pem and server.key; the node then has a `tls_port`, too,
            and lets in there only whom that authority vouches for.
        settings: More lines of rabbitmq.conf.
    """
    with TemporaryDirectory(prefix="lightbus-rabbitmq-") as folder:
        node = RabbitMQNode(Path(folder), tls=tls, settings=settings)
        node.start()
        try:
            yield node
        finally:
            node.kill()


def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers the protocol header with a method frame, `connection.start`."""
    method_frame = b"\x01"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == method_frame
    except OSError:
        return False
