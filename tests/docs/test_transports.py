"""The code on docs/transports.rst is that of the example."""

from __future__ import annotations

import tomllib

import pytest

from docs.pages import ROOT, Page, Program
from lightbus.transport.features import DeadLetterStore, SharedBroker

PAGE = Page("transports")
EXAMPLE = ROOT / "examples" / "file_transport"


def test_the_entry_point_is_that_of_the_example() -> None:
    shown = tomllib.loads(PAGE.block("entry-points"))
    real = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())

    assert shown["project"]["entry-points"] == real["project"]["entry-points"]


def test_the_conformance_test_is_that_of_the_example() -> None:
    shown = PAGE.block("lightbus.testing.conformance").removeprefix("# tests/test_conformance.py\n")

    real = (EXAMPLE / "tests" / "test_conformance.py").read_text()
    assert shown in real.replace("  # noqa: F403", "")


async def test_a_transport_lists_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(monkeypatch)

    await program.run(PAGE.block("class MyTransport"))

    assert SharedBroker in program["MyTransport"].__mro__
    assert DeadLetterStore in program["MyTransport"].__mro__
