"""Log lines that hold what anyone may have sent."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.support import PATIENCE, Broken, MakeBus, Received, eventually
from lightbus import OnError, Worker, log
from lightbus.concurrency.busy_threads import working_for_the_bus
from lightbus.log import get_logger, in_one_line, printable
from lightbus_memory.broker import Broker

HOSTILE = "id\n12:00:00 [critical] made up\x1b[31m\x9b\x85\u2028\u202e"
ESCAPED = r"id\n12:00:00 [critical] made up\x1b[31m\x9b\x85\u2028\u202e"


def test_no_value_starts_a_new_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("lightbus.test").error(f"{HOSTILE} failed.", event_id=HOSTILE, event_name="fine")

    (record,) = caplog.records
    assert record.getMessage() == f"{ESCAPED} failed. event_id={ESCAPED} event_name=fine"
    assert record.__dict__["lightbus"]["event_id"] == HOSTILE


PROGRAM = """
import logging
import sys
from lightbus.cli.support.log_output import set_up_logging
from lightbus.log import get_logger

log_format, hostile = sys.argv[1:]
set_up_logging(log_format, "info")
try:
    raise ValueError(hostile)
except ValueError:
    get_logger("lightbus").exception(
        f"Stopped: {hostile}", event_id=hostile, listener="\x1b[31m\x9b31m", values=[hostile]
    )
logging.getLogger("shop").error("got %s", hostile, stack_info=True)
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_control_characters_of_values_and_errors_are_escaped(log_format: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, HOSTILE],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stderr

    assert printed.count("made up") >= 5
    assert printed.replace("\n", "").isprintable()
    assert len([line for line in printed.splitlines() if line[0] != " "]) == 2


def test_a_logger_can_be_copied(caplog: pytest.LogCaptureFixture) -> None:
    copy.copy(get_logger("lightbus.test")).error("copied")

    assert caplog.messages == ["copied"]


def test_lines_and_letters_of_every_language_are_unchanged() -> None:
    text = "Zoë\n\t日本語\u3000🚀 👩\u200d🚀 \u0645\u06cc\u200c\u062e"

    assert printable(text) == text
    assert in_one_line(text.replace("\n\t", "\u00a0")) == text.replace("\n\t", "\u00a0")
    assert printable("\x00\x9b\r\x7f") == r"\x00\x9b\r\x7f"


class Failing(logging.Handler):
    """A handler of a program that fails in its own way."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        raise self._error


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The logger above all others of the bus; what a test adds to it is removed."""
    logger = logging.getLogger("lightbus")
    handlers, filters = list(logger.handlers), list(logger.filters)
    yield logger
    logger.handlers, logger.filters = handlers, filters


@pytest.mark.parametrize("error", [Broken("no disk"), SystemExit(3), GeneratorExit()])
def test_a_log_handler_that_raises_does_not_affect_the_program(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    logger.addHandler(Failing(error))

    get_logger("lightbus.test").error("It is late.")

    assert "It is late." in capsys.readouterr().err


@pytest.mark.parametrize("on_error", [OnError.ACKNOWLEDGE_AND_LOG, OnError.RETRY])
async def test_a_listener_continues_if_its_failure_cannot_be_logged(
    make_bus: MakeBus,
    broker: Broker,
    received: Received,
    logger: logging.Logger,
    on_error: OnError,
) -> None:
    logger.addHandler(Failing(Broken("no disk")))
    bus = make_bus(max_attempts=1)

    def fail_for_ann(username: str) -> None:
        received.add(username)
        if username == "ann":
            raise Broken

    bus.auth.user_deleted.listen(fail_for_ann, listener_name="gather", on_error=on_error)
    async with Worker(bus):
        for username in ("ann", "bob"):
            await bus.auth.user_deleted.fire_async(username=username)
        assert await received.next_ones(2) == ["ann", "bob"]
        await eventually(lambda: broker.dead_letters("shop"))


async def test_fire_succeeds_if_the_error_of_a_hook_after_sending_cannot_be_logged(
    make_bus: MakeBus, logger: logging.Logger
) -> None:
    logger.addHandler(Failing(Broken("no disk")))
    bus = make_bus()

    @bus.client.after_event_sent()
    def fail() -> None:
        raise Broken

    await bus.auth.user_deleted.fire_async(username="ann")


def test_fire_does_not_wait_for_log_handlers_whose_lock_its_thread_may_hold(
    make_bus: MakeBus, logger: logging.Logger
) -> None:
    bus = make_bus()
    handler, written = logging.Handler(), threading.Event()
    errors: list[object] = []

    def emit(record: logging.LogRecord) -> None:
        errors.append(record.exc_info and record.exc_info[0])
        written.set()

    handler.emit = emit  # type: ignore[method-assign]
    logger.addHandler(handler)

    @bus.client.after_event_sent()
    def fail() -> None:
        raise Broken

    handler.acquire()  # as where a signal handler or a destructor interrupts it
    with ThreadPoolExecutor(1) as threads:
        try:
            threads.submit(bus.auth.user_deleted.fire, username="ann").result(PATIENCE)
            assert not written.is_set()
        finally:
            handler.release()

        assert written.wait(PATIENCE)
    assert errors == [Broken]


def test_a_thread_on_which_the_bus_works_logs_in_order(logger: logging.Logger) -> None:
    handler, lines, is_last = logging.Handler(), list[str](), threading.Event()

    def emit(record: logging.LogRecord) -> None:
        lines.append(record.getMessage())
        if lines[-1] == "9":
            is_last.set()

    handler.emit = emit  # type: ignore[method-assign]
    logger.addHandler(handler)

    with working_for_the_bus():
        for number in range(10):
            get_logger("lightbus.test").error(str(number))
    assert is_last.wait(PATIENCE)

    assert lines == [str(number) for number in range(10)]


ENDING_AT_ONCE = """
import logging
import time
from lightbus.cli.run import _end_process
from lightbus.log import get_logger
from lightbus.concurrency.busy_threads import working_for_the_bus

class Slow(logging.StreamHandler):
    def emit(self, record):
        time.sleep(0.1)
        super().emit(record)

logging.getLogger("lightbus").addHandler(Slow())
with working_for_the_bus():
    get_logger("lightbus").error("first")
    get_logger("lightbus").error("last")
_end_process(0, at_once=True)
"""


def test_a_command_that_ends_at_once_writes_the_lines_of_every_thread() -> None:
    command = [sys.executable, "-c", ENDING_AT_ONCE]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)

    assert ended.stderr.splitlines() == ["first", "last"]


def test_a_line_without_a_thread_is_written_with_the_next(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log.flush()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with working_for_the_bus():
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            get_logger("lightbus.test").error("first")
        get_logger("lightbus.test").error("second")
    log.flush()

    assert caplog.messages == ["first", "second"]


def test_threads_that_log_at_once_have_one_writer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log.flush()
    start, is_first = threading.Thread.start, [True]

    def start_late(thread: threading.Thread) -> None:
        if is_first.pop() if is_first else False:
            get_logger("lightbus.test").error("meanwhile")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    with working_for_the_bus():
        get_logger("lightbus.test").error("first")
    writers = [thread for thread in threading.enumerate() if thread.name == "lightbus-log"]
    log.flush()

    assert len(writers) == 1
    assert caplog.messages == ["first", "meanwhile"]
