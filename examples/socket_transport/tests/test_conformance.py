"""The whole of what a transport's author writes to know that it works."""

import subprocess
import sys

import pytest

from lightbus.testing.conformance import *  # noqa: F403


@pytest.fixture(scope="session")
def port():
    command = [sys.executable, "-m", "lightbus_socket.broker", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        yield int(broker.stdout.readline())
        broker.terminate()


@pytest.fixture
def event_transport(port):
    return {"socket": {"port": port}}
