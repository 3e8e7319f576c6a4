"""What the command line says of itself."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from lightbus.cli import main


def groups(command: click.Command, *names: str) -> list[tuple[str, ...]]:
    """Return the names that lead to each command that has further ones."""
    if not isinstance(command, click.Group):
        return []
    found = [names]
    for name, sub in command.commands.items():
        found += groups(sub, *names, name)
    return found


@pytest.mark.parametrize("names", groups(main), ids=" ".join)
def test_no_help_text_of_a_command_is_truncated(names: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*names, "--help"], prog_name="lightbus", terminal_width=80)
    assert shown.exit_code == 0
    _, _, commands = shown.output.partition("Commands:\n")
    assert commands
    assert [line for line in commands.splitlines() if line.endswith("...")] == []
