"""How the path of the file is resolved."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightbus
from core.apis import AuthApi
from lightbus import Bus, create
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError
from lightbus_sqlite.settings import SQLiteSettings

HOMES = ("HOME", "XDG_STATE_HOME")


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a user without a home directory, as in some containers."""
    for variable in HOMES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)


def bus_at(path: str | None, **apis: object) -> Bus:
    transport = {"sqlite": None if path is None else {"path": path}}
    return create({"apis": {"default": {"event_transport": transport}, **apis}}, service_name="s")


@pytest.mark.parametrize("path", ["events.db", "./a/../events.db", "~/events.db", None])
def test_the_path_is_resolved_when_the_bus_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    for variable in HOMES:
        monkeypatch.setenv(variable, str(tmp_path / "before"))
    monkeypatch.chdir(tmp_path / "before")
    bus = bus_at(path)
    bus.client.register_api(AuthApi)
    handled: list[str] = []
    is_over = asyncio.Event()

    async def handle(username: str) -> None:
        handled.append(username)
        if username == "in a thread":
            is_over.set()

    bus.auth.user_deleted.listen(handle, listener_name="gather")

    async def main() -> None:
        async with lightbus.Worker(bus):
            await bus.auth.user_deleted.fire_async(username="before")
            for variable in HOMES:
                monkeypatch.setenv(variable, str(tmp_path / "after"))
            monkeypatch.chdir(tmp_path / "after")
            await asyncio.to_thread(bus.auth.user_deleted.fire, username="in a thread")
            async with asyncio.timeout(10):
                await is_over.wait()

    asyncio.run(main())
    bus.client.close()

    assert handled == ["before", "in a thread"]
    assert list((tmp_path / "after").iterdir()) == []


def test_symbolic_links_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "one")

    settings = SQLiteSettings(path=str(link / "events.db"))

    assert settings.path == str(tmp_path / "one" / "events.db")


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("path", [None, "~/events.db"])
def test_without_a_home_directory_the_error_says_to_set_a_path(path: str | None) -> None:
    with pytest.raises(ConfigError, match="Set `path` to an absolute path") as raised:
        bus_at(path)

    assert "$.apis.default.event_transport.sqlite" in str(raised.value)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_directory_the_default_transport_is_an_error_only_where_it_is_used() -> None:
    auth: dict[str, Any] = {"event_transport": {"memory": {}}}

    bus = create({"apis": {"auth": auth}}, service_name="s")

    assert bus.client.transports.describe("auth").startswith("memory")
    with pytest.raises(ConfigError, match="Set `path` to an absolute path"):
        bus.client.transports.describe("other")


def test_a_relative_path_is_an_error_if_the_current_directory_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.rmtree(folder)

    with pytest.raises(ConfigError, match="current directory cannot be read"):
        convert_settings({"path": "events.db"}, SQLiteSettings, source="a test")
    assert convert_settings({"path": "/e.db"}, SQLiteSettings, source="a test").path == "/e.db"


@pytest.mark.parametrize("arguments", [["config", "check"], ["run"]])
def test_without_a_home_directory_a_command_prints_one_line_and_exits_with_2(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create(service_name='s')\n")
    command = (
        "import pwd, sys; pwd.getpwuid = {}.__getitem__; "
        "from lightbus.cli import main; main(sys.argv[1:])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in HOMES}

    ended = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 2
    assert "Set `path` to an absolute path" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
