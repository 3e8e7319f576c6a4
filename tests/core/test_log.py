"""Log lines that hold what anyone may have sent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightbus.log import get_logger, in_one_line, printable

HOSTILE = "id\n12:00:00 [critical] made up\x1b[31m\x9b\x85\u2028\u202e"
ESCAPED = r"id\n12:00:00 [critical] made up\x1b[31m\x9b\x85\u2028\u202e"


def test_no_value_begins_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("lightbus.test").error(f"{HOSTILE} failed.", event_id=HOSTILE, event_name="fine")

    (record,) = caplog.records
    assert record.getMessage() == f"{ESCAPED} failed. event_id={ESCAPED} event_name=fine"
    assert record.__dict__["lightbus"]["event_id"] == HOSTILE


PROGRAM = """
import logging
import sys
from lightbus.cli.output import set_up_logging
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
def test_no_value_and_no_error_steers_the_terminal(log_format: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, log_format, HOSTILE],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stderr

    assert told.count("made up") >= 5
    assert told.replace("\n", "").isprintable()
    assert len([line for line in told.splitlines() if line[0] != " "]) == 2


def test_lines_and_letters_of_every_language_stay_as_they_are() -> None:
    text = "Zoë\n\t日本語\u3000🚀 👩\u200d🚀 \u0645\u06cc\u200c\u062e"

    assert printable(text) == text
    assert in_one_line(text.replace("\n\t", "\u00a0")) == text.replace("\n\t", "\u00a0")
    assert printable("\x00\x9b\r\x7f") == r"\x00\x9b\r\x7f"
