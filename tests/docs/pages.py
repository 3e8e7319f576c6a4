"""The pages of the documentation, and the code on them."""

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
    """Code on a page."""

    language: str
    code: str


class Page:
    """A page, by its name without the ending."""

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
        """Return the code of the only block that holds `text`."""
        (code,) = (block.code for block in self.blocks() if text in block.code)
        return code


class Program:
    """Runs the blocks of a page one after the other, as one program that it is about would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
        # What resolves the hints of classes looks for their module.
        self._module = ModuleType("program_of_a_page")
        monkeypatch.setitem(sys.modules, self._module.__name__, self._module)
        vars(self._module).update(names)

    def __getitem__(self, name: str) -> Any:
        return vars(self._module)[name]

    async def run(self, code: str) -> None:
        """Run code, in which ``await`` may stand at the top, as in a notebook."""
        compiled = compile(
            code, "a page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        result = eval(compiled, vars(self._module))  # noqa: S307 - the page is ours
        if inspect.iscoroutine(result):
            await result
