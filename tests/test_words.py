"""The project's text uses the terms of its glossary.

Each entry of `PHRASES` is a phrase to avoid and its replacement. The tests read documents, and the
docstrings, comments and strings of code. Names in backticks do not count.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[1]

# A space in a phrase also matches a line break.
PHRASES = {
    "can not": "cannot",
    "gives? back|gave back|given back|giving back": "requeue",
    "takes? back|took back|taken back|taking back": "requeue, undo or remove",
    "comes? again|came again|coming again": "is redelivered",
    "bury|buries|buried|burying": "dead-letter",
    "puts? off|putting off": "delay or retry",
    "people": "name the reader",
    "(?:story|stories) of": "details or history",
    "hands? over|handed over": "pass",
    "so long as": "while",
    "wholly": "completely",
    "what becomes of|what became of|what has become of": "the outcome of",
    "told": "reported, logged, passed or known",
    "begun": "started",
    "under way": "in flight or running",
    "lacking": "missing or not supported",
    "unseen": "unknown",
    "whoever|those who|one who": "name the subject",
    "what waits": "the backlog or the waiting events",
    "no more(?! than)(?=[.,;:]| and)": "no longer",
    "has its say|have their say": "applies",
    "comes? along|takes? along|taken along": "is moved",
    "is away|are away": "is unreachable",
    "has the rest|have the rest": "has the details",
    "heeds?|heeded": "uses",
    "mend|mends|mended|mending": "fix",
    "anew": "again",
    "by turns": "alternately",
}

# Files in which names on the wire or on disk contain a phrase
ALLOWED: dict[str, tuple[str, ...]] = {"begun": ("transports/lightbus_sqlite/schema.py",)}

DOCUMENTS = ("*.rst", "docs/*.rst", "examples/**/*.rst", "scripts/*", "tox.ini", "setup.cfg")
CODE = ("benchmarks/**/*.py", "examples/**/*.py", "lightbus/**/*.py", "transports/**/*.py")


@attrs.frozen
class Finding:
    """A phrase in a file."""

    path: str
    line: int
    phrase: str
    replacement: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}: write {self.replacement}"


def text_of_document(source: str) -> str:
    """Return a document in which names in backticks are blank."""
    return _without_names(source)


def text_of_code(source: str) -> str:
    """Return the docstrings, comments and strings of a module; everything else is blank.

    Quotes and comment signs become spaces, so that a phrase is found across the lines of a comment
    and across the parts of a string. Line breaks stay.
    """
    blank = [char if char.isspace() else "\0" for char in source]
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind not in ("COMMENT", "STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END"):
            continue
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        blank[start:end] = _text_of_token(kind, source[start:end])
    return _without_names("".join(blank))


def _text_of_token(kind: str, text: str) -> str:
    if kind == "COMMENT":
        return re.sub("^#+", _spaces, text)
    if kind == "STRING":
        prefix = re.match(r"[A-Za-z]*", text)
        assert prefix is not None
        if "f" in prefix[0].lower():  # on Python 3.11, with the expressions in it
            text = re.sub(r"\{[^{}]*\}", lambda found: "\0" * len(found[0]), text)
        text = re.sub(r"""^[A-Za-z]*('{3}|"{3}|'|")|('{3}|"{3}|'|")$""", _spaces, text)
    elif kind != "FSTRING_MIDDLE":
        text = _spaces(text)
    return text


def _without_names(text: str) -> str:
    names = r"``[^`]+``|`[^`\n]+`|_\w+`"
    return re.sub(names, lambda found: re.sub(r"\S", "\0", found[0]), text)


def _spaces(found: str | re.Match[str]) -> str:
    return " " * len(found if isinstance(found, str) else found[0])


def findings(path: str, text: str) -> Iterator[Finding]:
    """Yield each phrase to avoid in the text of a file."""
    for phrase, replacement in PHRASES.items():
        if path in ALLOWED.get(phrase, ()):
            continue
        pattern = re.compile(rf"\b(?:{phrase})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE)
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Finding(path, line, " ".join(found[0].split()), replacement)


def files(patterns: tuple[str, ...]) -> list[str]:
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.mark.parametrize("path", files(DOCUMENTS))
def test_a_document_uses_the_terms_of_the_glossary(path: str) -> None:
    found = [*findings(path, text_of_document((ROOT / path).read_text()))]

    assert not found, "\n".join(["", *map(str, found)])


@pytest.mark.parametrize("path", files(CODE))
def test_a_module_uses_the_terms_of_the_glossary(path: str) -> None:
    found = [*findings(path, text_of_code((ROOT / path).read_text()))]

    assert not found, "\n".join(["", *map(str, found)])


@pytest.mark.parametrize(
    "source",
    [
        "# It can\n# not be.\n",
        'raise ValueError(f"{name} can "\n    "not be.")\n',
        '"""Whether it can\n    not be."""\n',
    ],
)
def test_a_phrase_is_found_across_lines(source: str) -> None:
    (found,) = findings("a.py", text_of_code(source))

    assert str(found) == "a.py:1: 'can not': write cannot"


@pytest.mark.parametrize(
    "source", ["told = begun\n", 'f"{told} {begun!r}"\n', '"""Reads ``told`` and `begun`."""\n']
)
def test_a_name_is_no_phrase(source: str) -> None:
    assert not [*findings("a.py", text_of_code(source))]
