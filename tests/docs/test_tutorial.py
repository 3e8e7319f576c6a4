"""Runs the tutorial as it is printed.

Comments in the page, which readers do not see, name the step for the following block: ``run``,
``start`` or ``stop`` commands in a terminal; ``write`` or ``append`` a file, named in its first
line; ``shows`` checks the output of the last command or of a terminal. In the expected output,
``...`` matches any text, and ``{name}`` matches the same word each time.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import Page
from docs.terminal import Terminal, environment_of_a_user, run

TUTORIAL = Page("tutorial").text


class Reader:
    """Performs the steps of the tutorial in a directory."""

    def __init__(self, folder: Path, amqp_url: str) -> None:
        self.terminals: dict[str, Terminal] = {}
        self._folder = folder
        self._amqp_url = amqp_url
        self._last = ""
        self._known: dict[str, str] = {}
        self._environment = environment_of_a_user(folder)

    def do(self, step: str, block: str) -> None:
        verb, _, rest = step.partition(" ")
        getattr(self, f"do_{verb}")(rest, block)

    def do_write(self, _: str, block: str) -> None:
        name = block.splitlines()[0].removeprefix("# ")
        (self._folder / name).write_text(block)
        # Python would use an old compiled file if both sources have the same second and length.
        for compiled in self._folder.rglob("*.pyc"):
            compiled.unlink()

    def do_append(self, _: str, block: str) -> None:
        name = block.splitlines()[0].removeprefix("# ")
        with (self._folder / name).open("a") as file:
            file.write(block)

    def do_environment(self, _: str, block: str) -> None:
        for line in block.splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            value = self._amqp_url if name == "AMQP_URL" else value
            self._environment[name] = value.replace("$PWD", str(self._folder))

    def do_run(self, rest: str, block: str) -> None:
        code, self._last = run(block, self._folder, self._environment)
        assert code == int(rest.removeprefix("exit=") or 0), self._last

    def do_start(self, rest: str, block: str) -> None:
        name, until = rest.split(" until=")
        self.terminals[name] = Terminal(block, self._folder, self._environment)
        self.terminals[name].wait_for(until)

    def do_until(self, rest: str, _: str) -> None:
        name, text = rest.split(" ", 1)
        self.terminals[name].wait_for(text)

    def do_stop(self, name: str, _: str) -> None:
        self.terminals.pop(name).stop()

    def do_shows(self, name: str, block: str) -> None:
        for line in block.splitlines():
            pattern = self._pattern(line)
            found = self.terminals[name].wait_for(pattern) if name else pattern.search(self._last)
            assert found is not None, f"no {line!r} in:\n{self._last}"
            self._known.update(found.groupdict())

    def _pattern(self, line: str) -> re.Pattern[str]:
        parts = []
        for part in re.split(r"(\.\.\.(?= |[A-Za-z)]|$)|\{\w+\})", line):
            if part == "...":
                parts.append(".*")
            elif part.startswith("{") and part[1:-1] in self._known:
                parts.append(re.escape(self._known[part[1:-1]]))
            elif part.startswith("{"):
                parts.append(f"(?P<{part[1:-1]}>\\w+)")
            else:
                parts.append(re.escape(part))
        return re.compile("".join(parts))


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield the step in each comment, with the block that follows it or an empty string."""
    for comment in re.split(r"^\.\. tutorial: ", text, flags=re.MULTILINE)[1:]:
        step, _, rest = comment.partition("\n")
        block = re.match(r"\n(?:\.\. code-block:: \w+|::)\n\n((?: {4}.*\n|\n)+)", rest)
        yield step, textwrap.dedent(block.group(1)).strip("\n") + "\n" if block else ""


@pytest.mark.timeout(240)
def test_the_tutorial_works_as_it_is_printed(tmp_path: Path, rabbitmq_url: str) -> None:
    reader = Reader(tmp_path, rabbitmq_url)
    try:
        for step, block in steps(TUTORIAL):
            reader.do(step, block)
    finally:
        for terminal in reader.terminals.values():
            terminal.kill()


def test_every_block_of_the_tutorial_is_used() -> None:
    blocks = len(re.findall(r"^(?:\.\. code-block:: \w+|::)$", TUTORIAL, flags=re.MULTILINE))
    assert blocks == sum(block != "" for _, block in steps(TUTORIAL))
