"""What tests ask of a RabbitMQ, whoever started it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

HTTP_TIMEOUT = 30.0
CONSUMERS_TIMEOUT = 40.0
POLL_INTERVAL = 0.05

DEFAULT_PORTS = {"amqp": 5672, "http": 15672}

AMQP_URL = "LIGHTBUS_TEST_AMQP_URL"
MANAGEMENT_URL = "LIGHTBUS_TEST_MANAGEMENT_URL"


class RequestRefused(Exception):
    """The management API refused a request."""


class RabbitMQServer:
    """A broker, and its management API."""

    def __init__(
        self,
        amqp: tuple[str, int],
        management: tuple[str, int],
        *,
        user: str = "guest",
        password: str = "guest",
    ) -> None:
        self.host, self.amqp_port = amqp
        self.management_host, self.management_port = management
        self._user = user
        self._password = password

    @classmethod
    def given_by(cls, environment: Mapping[str, str]) -> Self | None:
        """Return the broker that `LIGHTBUS_TEST_AMQP_URL` leads to; None where that is not set.

        Its management API is where `LIGHTBUS_TEST_MANAGEMENT_URL` says, or at port 15672 of the
        same host. The virtual host of the URL does not matter: each test makes its own.
        """
        if not environment.get(AMQP_URL):
            return None
        amqp = urlsplit(environment[AMQP_URL])
        host = amqp.hostname or "127.0.0.1"
        management = urlsplit(environment.get(MANAGEMENT_URL) or f"http://{host}")
        if (amqp.scheme, management.scheme) != ("amqp", "http"):
            raise ValueError(f"{AMQP_URL} must begin with amqp://, {MANAGEMENT_URL} with http://")
        return cls(
            (host, amqp.port or DEFAULT_PORTS["amqp"]),
            (management.hostname or host, management.port or DEFAULT_PORTS["http"]),
            user=unquote(amqp.username or "guest"),
            password=unquote(amqp.password or "guest"),
        )

    @property
    def version(self) -> str:
        """The version that the broker itself reports."""
        return str(self.api("GET", "overview")["rabbitmq_version"])

    def url(self, vhost: str = "/", *, user: str | None = None, password: str | None = None) -> str:
        """Return the AMQP URL of a virtual host, for the broker's own user or another one."""
        login = f"{_quoted(user or self._user)}:{_quoted(password or self._password)}"
        return f"amqp://{login}@{self.host}:{self.amqp_port}/{_quoted(vhost)}"

    def create_vhost(self, name: str) -> None:
        """Create a virtual host, in which the broker's own user may do everything."""
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
            TimeoutError: It is not, for a long time.
        """
        deadline = time.monotonic() + CONSUMERS_TIMEOUT
        while not self._consumers(vhost, name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Nobody consumes from {name} in {CONSUMERS_TIMEOUT} s")
            time.sleep(POLL_INTERVAL)

    def _consumers(self, vhost: str, name: str) -> int:
        try:
            queue = self.api("GET", f"queues/{_quoted(vhost)}/{_quoted(name)}")
        except RequestRefused:
            return 0
        return int(queue.get("consumers", 0))

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the management API: `server.api("GET", "queues")`. The answer is parsed JSON or None.

        What stands between the slashes of `path` must be percent-encoded.
        """
        connection = http.client.HTTPConnection(
            self.management_host, self.management_port, timeout=HTTP_TIMEOUT
        )
        login = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            payload = None if body is None else json.dumps(body)
            connection.request(method, f"/api/{path}", payload, headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise RequestRefused(f"{method} /api/{path}: {response.status} {answer.decode()}")
        return json.loads(answer) if answer else None


def _quoted(name: str) -> str:
    return quote(name, safe="")
