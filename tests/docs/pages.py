"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]

_BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n\n(?P<code>(?: {4}.*\n|\n)+)", flags=re.MULTILINE
)


@attrs.frozen
class Block:
    """A code block of a page."""

    language: str
    code: str


class Page:
    """A page, given by its name without the suffix."""

    def __init__(self, name: str) -> None:
        (self._path,) = (path for path in PAGES if path.stem == name)

    @property
    def text(self) -> str:
        return self._path.read_text()

    def blocks(self) -> Iterator[Block]:
        for found in _BLOCK.finditer(self.text):
            code = textwrap.dedent(found["code"]).strip("\n") + "\n"
            yield Block(found["language"], code)

    def block(self, text: str) -> str:
        """Return the code of the only block that contains `text`."""
        (code,) = (block.code for block in self.blocks() if text in block.code)
        return code


class Program:
    """Runs the code blocks of a page one after the other, as one program."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
        # To resolve the hints of a class, Lightbus looks up the module of the class.
        self._module = ModuleType("program_of_a_page")
        monkeypatch.setitem(sys.modules, self._module.__name__, self._module)
        vars(self._module).update(names)

    def __getitem__(self, name: str) -> Any:
        return vars(self._module)[name]

    async def run(self, code: str) -> None:
        """Run code. As in a notebook, it may use ``await`` outside of a function."""
        compiled = compile(
            code, "a page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        result = eval(compiled, vars(self._module))  # noqa: S307 - the page is ours
        if inspect.iscoroutine(result):
            await result
