"""Services that tests run as processes: one that fires, and one that listens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service import AUTH_API, Service

LISTENER = """
import time
import lightbus
from pathlib import Path

bus = lightbus.create()


def welcome(username):
    print('begun', username)
    {body}
    print('done', username)


bus.auth.user_created.listen(welcome, listener_name='welcome', on_error=lightbus.OnError.{on_error})
"""


def listener(body: str = "pass", *, on_error: str = "SHUTDOWN") -> str:
    return LISTENER.format(body=body, on_error=on_error)


class AuthService:
    """The firing service: a folder with `AuthApi`, from which short programs fire."""

    def __init__(self, folder: Path, url: str) -> None:
        self._service = Service(folder / "auth_service", AUTH_API, url=url)

    def fire(self, statement: str) -> subprocess.CompletedProcess[str]:
        """Run a statement that may use `bus`, and return the ended process."""
        return subprocess.run(
            [sys.executable, "-c", f"from bus import bus\n{statement}"],
            cwd=self._service.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def fire_users(self, count: int) -> None:
        """Fire `user_created` for user-0, user-1, ..."""
        ended = self.fire(
            f"for n in range({count}):\n"
            "    bus.auth.user_created.fire(username=f'user-{n}', email='e')"
        )
        assert ended.returncode == 0, ended.stderr
