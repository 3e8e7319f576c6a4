"""The consoles for standard output and standard error, which are safe for a terminal."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable
from typing import IO, Any, Literal, NoReturn, cast

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lightbus.cli.support.exit_codes import FAILED, SUCCEEDED
from lightbus.log import UNSAFE_IN_TEXT, in_one_line, printable

# Text, or text with a style of `rich`
Part = str | tuple[str, str]

StreamName = Literal["stdout", "stderr"]

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


class SafeConsole(Console):
    """A console that prints text as it is: never as markup or emoji, and with control characters
    escaped.
    """

    def __init__(self, name: StreamName) -> None:
        stream = cast("IO[str]", _Stream(name))
        super().__init__(file=stream, markup=False, emoji=False, highlight=False)

    def print_line(self, *parts: Part) -> None:
        """Print `parts` as one line, however long it is."""
        text = Text()
        for part in parts:
            content, style = (part, "") if isinstance(part, str) else part
            text.append(in_one_line(content), style)
        self.print(text, soft_wrap=True)

    def write_json(self, value: Any, *, indent: int = 0) -> None:
        """Print `value` as JSON, on one line where `indent` is 0."""
        self.write(to_json(value, indent=indent))

    def write(self, text: str) -> None:
        """Print `text`, which may have several lines of any length."""
        self.file.write(printable(text) + "\n")
        self.file.flush()

    def render_str(self, text: str, **options: Any) -> Text:
        # Escaped before the layout, so that columns fit the escaped text.
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 event"`` or ``"1,200 events"``."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def to_json(value: Any, *, indent: int = 0, is_ascii: bool = True) -> str:
    """Return `value` as JSON, however deeply it is nested.

    Args:
        value: Any value that `msgspec` can encode; `msgspec.Raw` for JSON that is already encoded.
        indent: The number of spaces to indent by; 0 for one line.
        is_ascii: Whether to escape all characters outside of ASCII; if not, only those that are
            unsafe for a terminal.
    """
    text = msgspec.json.encode(value).decode()
    try:
        text = msgspec.json.format(text, indent=indent)
    except RecursionError:
        # Outside of strings, which hold no control character, these are spaces.
        text = re.sub(r"[\t\r\n]", " ", text)
    escaped = _NOT_ASCII if is_ascii else UNSAFE_IN_TEXT
    return escaped.sub(lambda found: _json_escape(found.group()), text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class _Stream:
    """A standard stream. If it cannot be written, the command ends without a traceback.

    Standard output is the purpose of a command. If its reader has gone, the command ends silently;
    on any other error, it ends with one line that says why. Failed writes to standard error are
    ignored, so that the work of a command does not depend on them.
    """

    def __init__(self, name: StreamName) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy asks for these before it has attributes
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._stream(), name)

    def write(self, text: str) -> int:
        try:
            return self._stream().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream().flush()
        except OSError as error:
            self._fail(error)

    def _stream(self) -> IO[str]:
        # `rich` replaces the stream while it draws a progress bar.
        stream = getattr(sys, self._name)
        return cast("IO[str]", getattr(stream, "rich_proxied_file", stream))

    def _fail(self, error: OSError) -> None:
        if self._name == "stdout":
            end_output(error)
        discard("stderr")


def end_output(error: OSError) -> NoReturn:
    """End the process because its output cannot be written: silently if the reader has gone, and
    with one line otherwise.
    """
    discard("stdout")
    if error.errno == errno.EPIPE:
        raise SystemExit(SUCCEEDED)
    err.print_line(("Error:", "red"), f" Cannot write the output: {error.strerror or error}.")
    raise SystemExit(FAILED)


def discard(name: StreamName) -> None:
    """Discard what is still buffered for a standard stream."""
    # Python would try to write it at exit, and fail.
    os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())


# Neither keeps a stream: each finds `sys.stdout` or `sys.stderr` whenever it writes.
out = SafeConsole("stdout")
err = SafeConsole("stderr")
