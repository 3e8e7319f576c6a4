"""What the documentation names is there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_docs_name_exists() -> None:
    named = {
        name
        for page in (ROOT / "docs").glob("*.rst")
        for name in re.findall(r"``(test_\w+)``", page.read_text())
    }
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }

    assert len(named) > 20
    assert named <= defined


def test_every_page_of_the_docs_is_listed_in_the_readme() -> None:
    readme = (ROOT / "README.rst").read_text()

    for page in (ROOT / "docs").glob("*.rst"):
        assert page.name in readme


PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code of that language on a page."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?: {{4}}.*\n|\n)+)"
    found = re.findall(pattern, page.read_text(), flags=re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_on_a_page_is_of_its_language(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in blocks(page, "shell"):
        subprocess.run(["/bin/bash", "-n"], input=block, text=True, check=True)


def test_what_the_pages_import_is_there() -> None:
    imported = {
        (node.module, alias.name)
        for page in PAGES
        for block in blocks(page, "python")
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightbus")
        for alias in node.names
    }
    assert len(imported) > 10
    for module, name in imported:
        assert name == "*" or hasattr(importlib.import_module(str(module)), name), (module, name)
