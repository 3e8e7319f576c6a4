"""Calls that would wait for themselves are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.support import PATIENCE, MakeBus
from lightbus.concurrency.busy_threads import working_for_the_bus
from lightbus.exceptions import CannotBlockHere


def test_a_blocking_call_on_a_thread_that_works_for_the_bus_is_refused_at_once(
    make_bus: MakeBus,
) -> None:
    bus = make_bus()
    with working_for_the_bus(), pytest.raises(CannotBlockHere, match="destructor"):
        bus.auth.user_deleted.fire(username="ann")
    with working_for_the_bus(), pytest.raises(CannotBlockHere, match="destructor"):
        bus.client.close()

    bus.auth.user_deleted.fire(username="ann")


def in_a_process(script: str, folder: Path, *, first: str = "") -> str:
    """Run a program in a process of its own, after the lines `first`; return its output."""
    environment = {**os.environ, "XDG_STATE_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{first}\n{PROGRAM}\n{script}"],
        capture_output=True,
        text=True,
        timeout=8 * PATIENCE,
        env=environment,
        check=True,
    )
    return done.stdout


PROGRAM = """
import gc, os, sys
import lightbus
from lightbus import Api, Event

class AuthApi(Api):
    user_deleted = Event(parameters=("username",))
    class Meta:
        name = "auth"

bus = lightbus.create({}, service_name="shop")
bus.client.register_api(AuthApi())

def fire():
    try:
        bus.auth.user_deleted.fire(username="ann")
        print("fired", flush=True)
    except lightbus.exceptions.LightbusException as error:
        print(type(error).__name__, flush=True)

class Fires:
    def __init__(self):
        self.itself = self
    def __del__(self):
        fire()
"""


def test_a_destructor_that_fires_on_the_thread_of_sqlite_is_refused_at_once(tmp_path: Path) -> None:
    script = """
import asyncio
async def collect_there():
    transport = await bus.client.transports.open("auth")
    gc.disable()
    Fires()
    await transport._database.write(lambda _: gc.collect(), timeout=30)
    await bus.client.close_async()
asyncio.run(collect_there())
"""
    assert in_a_process(script, tmp_path) == "CannotBlockHere\n"


def test_a_call_that_interrupts_a_fork_is_refused_at_once(
    tmp_path: Path,
) -> None:
    # The function that is registered first is the last to be called before a fork.
    script = """
fire()
if os.fork() == 0:
    os._exit(0)
os.wait()
fire()
"""
    fires_before_a_fork = "import os; os.register_at_fork(before=lambda: fire())"
    assert in_a_process(script, tmp_path) == "fired\nfired\n"
    assert in_a_process(script, tmp_path, first=fires_before_a_fork) == (
        "fired\nCannotBlockHere\nfired\n"
    )


def test_a_destructor_that_fires_at_the_end_of_the_interpreter_is_refused_at_once(
    tmp_path: Path,
) -> None:
    # Its defaults keep what it needs, for the module's names are gone by then.
    script = """
class FiresLate:
    def __del__(self, bus=bus, print=print):
        try:
            bus.auth.user_deleted.fire(username="ann")
        except Exception as error:
            print(type(error).__name__, flush=True)

fire()
kept = FiresLate()
"""
    assert in_a_process(script, tmp_path) == "fired\nTransportClosed\n"
