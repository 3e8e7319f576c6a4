"""What the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path

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
