"""What the documentation names is there, and what it shows is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT, Page

# Blocks that no test runs, by a text in them, and why.
NOT_RUN = {
    "scripts/test": "it is what runs the tests; tests/test_swapping_transports.py runs the demo",
    "scripts/bench": "it takes an hour",
    "set_topic_permissions": "it changes what a user of a broker may do",
    "lightbus[uvloop]": "one Python has it installed, and all of the tests run on it",
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


def test_contributing_says_where_every_package_is() -> None:
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
    """Return what a file of tests names blocks by."""
    return [
        ast.literal_eval(node.args[0])
        for node in ast.walk(ast.parse(tests.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "block"
        and isinstance(node.args[0], ast.Constant)
    ]
