"""Runs commands of `lightbus` in forks of one process, which has loaded Python and the libraries.

A request is a message on the socket that is standard input: the arguments, the folder, the
environment and the time limit as JSON, with the three standard streams of the command. The answer
is the exit code.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import sys

import lightbus.cli
from lightbus.transport.registry import find_transport

# Bytes of the longest request
LONGEST = 65_536

CLI = lightbus.cli.__name__


def main() -> None:
    """Run commands, one after another, until the socket is closed."""
    find_transport("sqlite")
    # The modules of the command line read the environment when they are imported, so each command
    # imports them again.
    for name in [name for name in sys.modules if name.startswith(CLI)]:
        del sys.modules[name]
    # What is loaded is garbage of no command.
    gc.freeze()
    requests = socket.socket(fileno=os.dup(0))
    while True:
        request, streams, _, _ = socket.recv_fds(requests, LONGEST, 3)
        if not request:
            return
        if (child := os.fork()) == 0:
            requests.close()
            run(request, streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        requests.send(str(os.waitstatus_to_exitcode(status)).encode())


def run(request: bytes, streams: list[int]) -> None:
    """Run the command, which ends this process."""
    arguments, folder, environment, timeout = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Python asks a stream whether it can seek when it opens it.
    sys.stdin = open(0)  # noqa: SIM115 - open until the process ends, as are the others
    sys.stdout = open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    sys.path[0] = folder
    signal.alarm(timeout)
    runpy.run_module(CLI, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
