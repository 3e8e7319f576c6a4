"""Names in the documentation exist, and a test runs each code block."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT, Page

# Blocks that no test here runs, given by a text in them, with the reason
NOT_RUN = {
    "scripts/test": "it runs the tests; tests/test_swapping_transports.py runs the demo",
    "scripts/bench": "it takes an hour",
    "set_topic_permissions": "it changes the permissions of a broker's user",
    "lightbus[uvloop]": "uvloop is installed on one Python version, where all tests use it",
}


def test_every_test_that_the_docs_name_exists() -> None:
    named = {
        name
        for page in (ROOT / "docs").glob("*.rst")
        for name in re.findall(r"``(test_\w+)``", page.read_text())
    }
    defined = {
        name
        for folder in (ROOT / "tests", ROOT / "lightbus" / "testing" / "conformance")
        for file in folder.rglob("*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }

    assert len(named) > 20
    assert named <= defined


def test_every_page_of_the_docs_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.rst").read_text()

    for page in (ROOT / "docs").glob("*.rst"):
        assert page.name in readme


def test_every_package_is_listed_in_contributing() -> None:
    contributing = (ROOT / "CONTRIBUTING.rst").read_text()
    listed = re.findall(r"^      (\w+)/ ", contributing, re.MULTILINE)
    packages = {file.parent.name for file in (ROOT / "lightbus").glob("*/__init__.py")}

    assert sorted(listed) == sorted(packages)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_of_code_on_a_page_is_run_by_a_test(path: Path) -> None:
    if path.stem == "tutorial":
        return  # test_tutorial.py counts its own.
    tests = Path(__file__).parent / f"test_{path.stem.lower().replace('-', '_')}.py"
    texts = [*NOT_RUN, *(_texts_of_blocks(tests) if tests.exists() else ())]

    for block in Page(path.stem).blocks():
        assert any(text in block.code for text in texts), f"no test takes this:\n{block.code}"


def _texts_of_blocks(tests: Path) -> list[str]:
    """Return the texts that a test file uses to select blocks."""
    return [
        ast.literal_eval(node.args[0])
        for node in ast.walk(ast.parse(tests.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "block"
        and isinstance(node.args[0], ast.Constant)
    ]
