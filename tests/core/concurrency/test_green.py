"""Firing under gevent, and how eventlet is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import lightbus
from core.support import MakeBus
from lightbus.exceptions import ConfigError

# Enough for a slow machine; a script that takes so long hangs.
PATIENCE = 40

BUS = """
import gevent.monkey
gevent.monkey.patch_all()
import json, sys, tempfile, time
import gevent, gevent.threadpool
if sys.argv[1] == "without uvloop":
    sys.modules["uvloop"] = None
import lightbus
from lightbus import Api, Event

class AuthApi(Api):
    user_deleted = Event(parameters=("username",))
    class Meta:
        name = "auth"

def new_bus(name):
    transport = {"sqlite": {"path": sys.argv[2]}}
    bus = lightbus.create({"apis": {"default": {"event_transport": transport}}}, service_name=name)
    bus.client.register_api(AuthApi())
    return bus

bus = new_bus("shop")
bus.auth.user_deleted.listen(lambda username: None, listener_name="gather")

def fire(username):
    return bus.auth.user_deleted.fire(username=username).kwargs["username"]
"""


def run(script: str, folder: Path, *, mode: str = "") -> Any:
    """Run `script` behind `BUS` in a process of its own; return the last line that it prints."""
    command = [sys.executable, "-c", BUS + script, mode, str(folder / "events.db")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, cwd=folder, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mode", ["with uvloop", "without uvloop"])
def test_greenlets_fire_under_gevent_and_the_process_ends(tmp_path: Path, mode: str) -> None:
    script = """
fired = [gevent.spawn(fire, str(number)).get() for number in range(3)]
together = [gevent.spawn(fire, str(number)) for number in range(20)]
gevent.joinall(together)
fired += [one.get() for one in together]
fired.append(gevent.get_hub().threadpool.apply(fire, ("on a thread",)))
bus.client.close()
fired.append(fire("once more"))
print(json.dumps(fired))
"""
    once = [str(number) for number in range(3)]
    together = [str(number) for number in range(20)]

    assert run(script, tmp_path, mode=mode) == [*once, *together, "on a thread", "once more"]


@pytest.mark.parametrize("mode", ["with uvloop", "without uvloop"])
def test_other_greenlets_run_while_one_fires(tmp_path: Path, mode: str) -> None:
    script = """
from gevent.event import Event
hook_runs, other_ran = [], []

@bus.client.before_event_sent()
def wait_for_the_other():
    # Neither this thread nor a lock of gevent: only time passes here until the other has run.
    while not other_ran:
        gevent.sleep(0.001)

firing = gevent.spawn(fire, "ann")
other = gevent.spawn(lambda: other_ran.append(True))
print(json.dumps([firing.get(timeout=20), other_ran]))
"""
    assert run(script, tmp_path, mode=mode) == ["ann", [True]]


def test_a_child_forked_under_gevent_fires(tmp_path: Path) -> None:
    script = """
import os
fire("parent")
if (child := os.fork()) == 0:
    fire("child")
    os._exit(0)
_, status = os.waitpid(child, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), fire("parent")]))
"""
    assert run(script, tmp_path) == [0, "parent"]


def test_a_callback_of_gevents_hub_cannot_fire(tmp_path: Path) -> None:
    script = """
from gevent.event import AsyncResult
raised = AsyncResult()

def callback():
    try:
        fire("ann")
    except lightbus.exceptions.CannotBlockHere as error:
        raised.set([str(error)])

gevent.get_hub().loop.run_callback(callback)
print(json.dumps(raised.get(timeout=20)))
"""
    (said,) = run(script, tmp_path)
    assert "gevent" in said


def test_a_worker_runs_under_gevent(tmp_path: Path) -> None:
    script = """
import asyncio
handled = []

async def serve():
    done = asyncio.Event()
    def handle(username):
        handled.append(username)
        loop.call_soon_threadsafe(done.set)
    loop = asyncio.get_running_loop()
    other = new_bus("other")
    other.auth.user_deleted.listen(handle, listener_name="handle")
    async with lightbus.Worker(other):
        await other.auth.user_deleted.fire_async(username="ann")
        await asyncio.wait_for(done.wait(), 20)
    await other.client.close_async()

asyncio.run(serve())
print(json.dumps(handled))
"""
    assert run(script, tmp_path) == ["ann"]


def test_a_process_patched_by_eventlet_is_refused(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = make_bus()
    patcher = types.ModuleType("eventlet.patcher")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)

    monkeypatch.setattr(patcher, "already_patched", {}, raising=False)
    bus.auth.user_deleted.fire(username="ann")

    monkeypatch.setattr(patcher, "already_patched", {"thread": True})
    with pytest.raises(ConfigError, match="eventlet"):
        lightbus.create({}, service_name="shop")
    with pytest.raises(ConfigError):
        bus.auth.user_deleted.fire(username="ann")
