"""What the commands that work on a bus share, in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import Command


@pytest.fixture(autouse=True)
def bus_module(tmp_path: Path) -> None:
    (tmp_path / "bus.py").write_text("import lightbus\nbus = lightbus.create()\n")


def test_a_missing_bus_module_is_named(command: Command, tmp_path: Path) -> None:
    for setting in ({"LIGHTBUS_MODULE": "nope"}, {"LIGHTBUS_CONFIG": "named.json"}):
        (tmp_path / "named.json").write_text('{"bus": "nope"}')
        code, _, said = command("config", "check", **setting)
        assert code == 2
        assert "'nope' was not found" in said


@pytest.mark.parametrize("name", ["bus.py", "./bus"])
def test_a_file_name_is_not_a_bus_module(command: Command, name: str) -> None:
    code, _, said = command("status", "--bus", name)
    assert code == 2
    assert "is not the dotted name of a module, such as 'bus'" in said


@pytest.mark.parametrize("subcommand", ["status", "topology", "schema dump", "dead-letters list"])
def test_a_mistake_in_the_bus_module_is_reported_with_its_place(
    command: Command, tmp_path: Path, subcommand: str
) -> None:
    with (tmp_path / "bus.py").open("a") as bus:
        bus.write("bus.auth.paid.listen(print, concurrency=0)\n")
    code, _, said = command(*subcommand.split())
    assert code == 2
    assert "concurrency is 0; pass 1 or more." in said
    assert "bus.py, line 3)" in said


@pytest.mark.parametrize("subcommand", ["status", "topology", "tail", "schema asyncapi"])
def test_a_failing_hook_is_reported_in_one_line(
    command: Command, tmp_path: Path, subcommand: str
) -> None:
    with (tmp_path / "bus.py").open("a") as bus:
        bus.write("@bus.client.on_start()\ndef fails():\n    raise OSError('no database')\n")
    code, _, said = command(*subcommand.split())
    assert (code, said) == (1, "Error: OSError: no database\n")


@pytest.mark.parametrize(
    "subcommand",
    ["fire auth.paid", "status", "tail auth.*", "dead-letters list", "inspect 12345678"],
)
def test_a_command_warns_if_it_cannot_see_events_of_other_processes(
    command: Command, tmp_path: Path, subcommand: str
) -> None:
    (tmp_path / "bus.py").write_text(
        "import lightbus\n"
        "bus = lightbus.create({'apis': {'default': {'event_transport': {'memory': {}}}}})\n"
        "bus.client.on_start()(lambda: 1 / 0)\n"
    )
    _, _, said = command(*subcommand.split())
    assert said.startswith(
        "Warning: The memory transport keeps events in the memory of one process. This command "
        "runs in another.\n"
    )
