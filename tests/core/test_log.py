"""Log lines that hold what anyone may have sent."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightbus.log import get_logger, printable

HOSTILE = "id\n12:00:00 [critical] made up\x1b[31m"


def test_no_value_begins_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("lightbus.test").error("An event failed.", event_id=HOSTILE, event_name="fine")

    (record,) = caplog.records
    assert record.getMessage() == f"An event failed. event_id={HOSTILE!r} event_name=fine"
    assert record.__dict__["lightbus"]["event_id"] == HOSTILE


PROGRAM = """
import sys
from lightbus.cli.output import set_up_logging
from lightbus.log import get_logger

log_format, hostile = sys.argv[1:]
set_up_logging(log_format, "info")
try:
    raise ValueError(hostile)
except ValueError:
    get_logger("lightbus").exception("An event failed.", event_id=hostile)
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

    assert told.count("made up") >= 2
    assert told.replace("\n", "").isprintable()


def test_lines_and_letters_of_every_language_stay_as_they_are() -> None:
    text = "Zoë\n\t日本語 🚀"

    assert printable(text) == text
    assert printable("\x00\x9b\r\x7f") == r"\x00\x9b\r\x7f"
