"""``lightbus run``: runs the listeners and tasks of a bus until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from importlib.metadata import version
from typing import Any, NoReturn

import click

from lightbus.bus import Bus
from lightbus.cli.support.bus_options import bus_options, load_bus
from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED, WRONG_USAGE
from lightbus.cli.support.log_output import FORMATS, LEVELS, set_up_logging
from lightbus.cli.support.reload import run_with_reload
from lightbus.cli.support.signals import STOP_SIGNALS, ForkSafeSignals
from lightbus.client import BusClient
from lightbus.exceptions import LightbusException, TransportUnavailable
from lightbus.log import flush, get_logger
from lightbus.transport.pool import new_event_loop
from lightbus.worker.health_endpoint import HealthEndpoint
from lightbus.worker.worker import Worker

_log = get_logger("lightbus")

_KINDS = ("events", "tasks")


@click.command(short_help="Handle events and run tasks until stopped.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="auto: console on a terminal, and JSON lines otherwise.",
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve /live, /ready and /metrics on this port; 0 selects a free port.",
)
@click.option(
    "--health-host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address of the health port.",
)
@click.option("--reload", is_flag=True, help="Restart when a file changes, for development.")
@click.option("--only", type=click.Choice(_KINDS), help="Only handle events, or only run tasks.")
@click.option("--skip", type=click.Choice(_KINDS), help="Do not handle events, or not run tasks.")
@bus_options
def run(
    *,
    log_level: str,
    log_format: str,
    health_port: int | None,
    health_host: str,
    reload: bool,
    only: str | None,
    skip: str | None,
    **options: Any,
) -> None:
    """Run the listeners of a bus, and its scheduled and background tasks, until stopped.

    On Ctrl-C or SIGTERM, the worker waits for running handlers and requeues its other events. A
    second signal stops it at once.

    Exits with 0 if stopped, 1 if a listener, a task or a hook failed or a broker could not be
    reached, and 2 if the usage, the configuration or the bus module is wrong.
    """
    if only is not None and skip is not None:
        raise click.UsageError("--only and --skip exclude each other.")
    set_up_logging(log_format, log_level)
    bus = _load_bus(options, reload=reload)
    kinds = [kind for kind in _KINDS if kind != skip and only in (None, kind)]
    worker = Worker(bus, serves_events="events" in kinds, runs_tasks="tasks" in kinds)
    with ForkSafeSignals(), asyncio.Runner(loop_factory=new_event_loop) as runner:
        code = runner.run(_serve(bus, worker, health_host, health_port))
        if worker.unfinished:
            # Leaving the block would wait for handlers that cannot be ended.
            _end_process(code, at_once=True)
    _end_process(code)


def _load_bus(options: dict[str, Any], *, reload: bool) -> Bus:
    """Return the bus of this worker. With `reload`, run the worker in a child process instead, and
    do not return.
    """
    try:
        if reload:
            sys.exit(run_with_reload([word for word in sys.argv[1:] if word != "--reload"]))
        return load_bus(**options)
    except LightbusException as error:
        _log.critical(str(error))
        _end_process(WRONG_USAGE)
    except KeyboardInterrupt:
        _log.info("Stopped.")
        _end_process(SUCCEEDED)


async def _serve(bus: Bus, worker: Worker, health_host: str, health_port: int | None) -> int:
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _on_signal, worker, number)
    _announce_bus(bus)
    health = None
    try:
        if health_port is not None:
            health = HealthEndpoint(worker, bus.client, host=health_host, port=health_port)
            _log.info(f"Health endpoint: {health.address}/live and {health.address}/ready.")
        await worker.run(on_started=lambda: _announce_ready(bus, worker))
    except Exception as error:
        return _report(error, worker)
    finally:
        await bus.client.close_async()
        if health is not None:
            await asyncio.to_thread(health.close)
    _log.info("Stopped.")
    return SUCCEEDED


def _on_signal(worker: Worker, number: int) -> None:
    worker.request_stop()
    _log.info(
        "Stopping: waiting for running handlers. Send the signal again to stop at once.",
        signal=signal.Signals(number).name,
    )


def _announce_bus(bus: Bus) -> None:
    client = bus.client
    _log.info(
        f"Starting Lightbus {version('lightbus')}.",
        service=client.config.service_name,
        process=client.config.process_name(),
        config=client.config.source,
    )


def _announce_ready(bus: Bus, worker: Worker) -> None:
    client = bus.client
    listeners = client.listeners if worker.serves_events else ()
    tasks = client.tasks if worker.runs_tasks else ()
    for transport, api_names in _apis_by_transport(client).items():
        _log.info(f"Using {transport}.", apis=", ".join(api_names))
    for listener in listeners:
        _log.info(
            "Listening.",
            listener=listener.name,
            events=", ".join(f"{listener.api_name}.{name}" for name in sorted(listener.events)),
            on_error=listener.on_error.name,
        )
    for task in tasks:
        _log.info("Running.", task=task.name)
    if listeners and not client.config.is_service_named:
        _log.warning(
            "service_name is not set; using the name of the directory. Set it, because services "
            "with the same name share their events.",
            service=client.config.service_name,
        )
    _log.info("Ready. Press Ctrl-C to stop.", listeners=len(listeners), tasks=len(tasks))


def _apis_by_transport(client: BusClient) -> dict[str, list[str]]:
    by_transport: dict[str, list[str]] = {}
    for api_name in sorted({*client.apis, *(listener.api_name for listener in client.listeners)}):
        by_transport.setdefault(client.transports.describe(api_name), []).append(api_name)
    return by_transport


def _report(error: Exception, worker: Worker) -> int:
    """Log why the worker stopped and return the exit code for it."""
    if isinstance(error, LightbusException):
        _log.critical(f"Stopped: {error}")
        # Once the worker has served, the configuration is right. An unreachable broker may return.
        is_valid = worker.has_served or error is worker.failure
        return FAILED if is_valid or isinstance(error, TransportUnavailable) else WRONG_USAGE
    _log.critical(
        f"Stopped because a listener, a task or a hook failed: {type(error).__name__}: {error}",
        # The tracebacks of listeners and tasks are logged when they fail.
        exc_info=None if error is worker.failure else error,
    )
    return FAILED


def _end_process(code: int, *, at_once: bool = False) -> NoReturn:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # the process is about to stop
    if at_once:
        # `sys.exit` would wait for the threads of handlers that cannot be ended.
        flush()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
