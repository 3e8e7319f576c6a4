"""A real RabbitMQ node of the tests' own, which they may restart, kill and fill as they like.

It shares nothing with a broker that may already run on the machine: its name, ports, Erlang port
mapper (epmd), cookie, home and data are all its own, and it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

START_TIMEOUT = 40.0
STOP_TIMEOUT = 15.0
CTL_TIMEOUT = 30.0
HTTP_TIMEOUT = 10.0
POLL_INTERVAL = 0.05
LOG_TAIL_LINES = 40

# A quorum queue is known by name in a file (Ra's names.dets) that RabbitMQ saves once it was left
# alone for 500 ms. Killed before that, the node comes back with a queue that can be declared but
# never elects a leader and answers nothing, whatever it had confirmed. (Seen on 3.10.8.) Tests wait
# this long, in seconds, between declaring a queue and killing the node.
NEW_QUEUES_ARE_SAVED_AFTER = 1.0

# Below the range from which Linux takes the ports of outgoing connections. Inside it, a client that
# keeps trying to reach a stopped node could be given the node's own port, and keep it out.
PORTS = range(15_000, 32_000)

# Leads the process group that all of a node's processes are in, and ends the group once its stdin
# closes: that is, when the test run dies, however it dies. PR_SET_PDEATHSIG would watch the thread
# that started the node instead, and tests start nodes in threads that end.
GUARD = ("sh", "-c", "read -r _; kill -KILL 0")

HOW_TO_INSTALL = (
    "These tests start a private RabbitMQ node and found no {program}. Install RabbitMQ (Debian, "
    "Ubuntu: `apt-get install rabbitmq-server`). If it is installed in an unusual place, set "
    "RABBITMQ_SERVER to the path of its `rabbitmq-server` script, and put Erlang on PATH."
)

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


class NodeFailed(Exception):
    """RabbitMQ is not installed, did not come up, or refused a request."""


class RabbitMQNode:
    """One node, with its files in `folder`. Started again, it has the same ports and the same data.

    Its methods block, `start()` and `stop()` for seconds. Where a test has an event loop to keep
    alive meanwhile, it calls them through `asyncio.to_thread()`.
    """

    def __init__(self, folder: Path, *, tls: Path | None = None) -> None:
        self.folder = folder
        self._tls = tls
        self.name = f"lightbus-{secrets.token_hex(4)}@localhost"
        self.amqp_port, self.management_port, self.tls_port = _free_ports(3)
        self._dist_port, self._epmd_port = _free_ports(2)
        self._guard: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    # Its life

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Start the node and wait until it serves AMQP and the management API."""
        if self.is_running:
            raise NodeFailed(f"{self.name} is already running")
        server, epmd = _find_server(), _find_program("epmd")
        self.kill()  # what is left of a node that died by itself
        self._write_files()
        try:
            self._guard = subprocess.Popen(GUARD, stdin=subprocess.PIPE, process_group=0)
            self._epmd = self._spawn(epmd, "-address", "127.0.0.1", "-port", f"{self._epmd_port}")
            self._wait_for(lambda: _is_open(self._epmd_port), self._epmd)
            self._server = self._spawn(server)
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
        if self._guard is None:
            return
        os.killpg(self._guard.pid, signal.SIGKILL)
        for process in (self._server, self._epmd, self._guard):
            if process is not None:
                process.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard = self._epmd = self._server = None

    def freeze(self) -> None:
        """Stop the node's process until `thaw()`: it keeps its connections, and says nothing."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have the node go on after `freeze()`."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    @property
    def version(self) -> str:
        """Which RabbitMQ it is, by its own word, such as ``"3.10.8"``."""
        return str(self.api("GET", "overview")["rabbitmq_version"])

    # What is in it

    def url(self, vhost: str = "/", *, user: str = "guest", password: str = "guest") -> str:
        login = f"{_quoted(user)}:{_quoted(password)}"
        return f"amqp://{login}@127.0.0.1:{self.amqp_port}/{_quoted(vhost)}"

    def create_vhost(self, name: str) -> None:
        """Create a virtual host, in which `guest` may do everything."""
        self.api("PUT", f"vhosts/{_quoted(name)}")

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed."""
        self.api("DELETE", f"vhosts/{_quoted(name)}")

    def add_user(
        self,
        name: str,
        password: str,
        *,
        vhost: str,
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
    ) -> None:
        """Add a user who may do in `vhost` what the three patterns allow, and nothing elsewhere."""
        permissions = {"configure": configure, "write": write, "read": read}
        self.api("PUT", f"users/{_quoted(name)}", {"password": password, "tags": ""})
        self.api("PUT", f"permissions/{_quoted(vhost)}/{_quoted(name)}", permissions)

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with all that is in it; its consumers are told."""
        self.api("DELETE", f"queues/{_quoted(vhost)}/{_quoted(name)}")

    def wait_for_consumers(self, vhost: str, name: str) -> None:
        """Wait until a queue exists and is consumed from.

        Raises:
            NodeFailed: It is not, for a long time.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self._consumers(vhost, name):
            if time.monotonic() > deadline:
                raise NodeFailed(f"Nobody consumes from {name} in {START_TIMEOUT} s")
            time.sleep(POLL_INTERVAL)

    def _consumers(self, vhost: str, name: str) -> int:
        try:
            queue = self.api("GET", f"queues/{_quoted(vhost)}/{_quoted(name)}")
        except NodeFailed:
            return 0
        return int(queue.get("consumers", 0))

    def close_connections(self, vhost: str) -> None:
        """Close, from the broker's side, every connection to `vhost`."""
        # Not by the management API, which hears of a connection up to a second late.
        self.ctl("close_all_connections", "--vhost", vhost, "closed by a test")

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API: `node.api("GET", "queues")`. The answer is parsed JSON or None.

        What stands between the slashes of `path` must be percent-encoded.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.management_port, timeout=HTTP_TIMEOUT
        )
        login = base64.b64encode(b"guest:guest").decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            payload = None if body is None else json.dumps(body)
            connection.request(method, f"/api/{path}", payload, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise NodeFailed(f"{method} /api/{path}: {response.status} {answer.decode()}")
        return json.loads(answer) if answer else None

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, for what the management API cannot do, such as raising an alarm."""
        result = subprocess.run(
            [Path(_find_server()).with_name("rabbitmqctl"), *arguments],
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

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        assert self._guard is not None
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                process_group=self._guard.pid,
            )

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
            "ERL_EPMD_PORT": str(self._epmd_port),
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
        (self.folder / "rabbitmq.conf").write_text(configuration)
        (self.folder / "rabbitmq-env.conf").touch()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(16))

    def _serves(self) -> bool:
        try:
            self.api("GET", "whoami")
        except (OSError, http.client.HTTPException, NodeFailed):
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
def running_node(*, tls: Path | None = None) -> Iterator[RabbitMQNode]:
    """A node that runs for the length of a `with` block and then leaves nothing behind.

    Args:
        tls: A folder with ca.pem, server.pem and server.key; the node then has a `tls_port`, too,
            and lets in there only whom that authority vouches for.
    """
    with TemporaryDirectory(prefix="lightbus-rabbitmq-") as folder:
        node = RabbitMQNode(Path(folder), tls=tls)
        node.start()
        try:
            yield node
        finally:
            node.kill()


def _find_server() -> str:
    # Not the one on Debian's PATH if it can be helped: that wrapper insists on the system's broker,
    # its user and its folders. The script that it wraps is content with ours.
    unwrapped = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if chosen := os.environ.get("RABBITMQ_SERVER"):
        return _find_program(chosen)
    return str(unwrapped) if unwrapped.exists() else _find_program("rabbitmq-server")


def _find_program(name: str) -> str:
    if program := shutil.which(name):
        return program
    raise NodeFailed(HOW_TO_INSTALL.format(program=name))


def _free_ports(count: int) -> list[int]:
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


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers the protocol header with a method frame, `connection.start`."""
    method_frame = b"\x01"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == method_frame
    except OSError:
        return False


def _quoted(name: str) -> str:
    return quote(name, safe="")
