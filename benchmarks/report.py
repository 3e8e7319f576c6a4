"""The results of a topic: tables and plots, for the terminal, a file and the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import rich.table

from benchmarks.comparing import Summary
from benchmarks.environments import ROOT

PAGE = ROOT / "docs" / "performance.rst"
PICTURES = ROOT / "docs" / "performance"


@attrs.frozen
class Table:
    """A table of text cells."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def for_terminal(self, title: str) -> rich.table.Table:
        """Return the table for `rich`."""
        table = rich.table.Table(title=title, show_lines=False)
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="left" if number < 2 else "right")  # noqa: PLR2004
        for row in self.rows:
            table.add_row(*row)
        return table

    def for_docs(self) -> str:
        """Return the table as reStructuredText."""
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in (self.columns, *self.rows):
            for number, cell in enumerate(row):
                lines.append(f"   {' ' if number else '*'} - {cell}".rstrip())
        return "\n".join(lines)


@attrs.frozen
class Line:
    """One line of a plot.

    Attributes:
        points: Summaries by their place on the x axis.
        is_dashed: Tells it from another line of the same colour.
    """

    label: str
    colour: str
    points: dict[float, Summary]
    is_dashed: bool = False


@attrs.frozen(kw_only=True)
class Plot:
    """A plot of several lines.

    Attributes:
        name: Of its file.
        x_is_linear: Whether the x axis is linear; else it is logarithmic.
        y_from_zero: Whether the y axis is linear; else it is logarithmic.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    x_is_linear: bool = False
    y_from_zero: bool = True

    def as_table(self) -> Table:
        """Return the numbers of the plot as a table."""
        places = sorted({place for line in self.lines for place in line.points})
        rows = [
            (f"{place:,.0f}", *(shown(line.points.get(place)) for line in self.lines))
            for place in places
        ]
        return Table((self.x_label, *(line.label for line in self.lines)), rows)


@attrs.frozen
class Report:
    """The results of a topic.

    Attributes:
        notes: Sentences to go with it.
    """

    tables: list[Table] = attrs.field(factory=list)
    plots: list[Plot] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)

    def for_docs(self) -> str:
        """Return the report as reStructuredText."""
        parts = [table.for_docs() for table in self.tables]
        for plot in self.plots:
            parts.append(f".. image:: performance/{plot.name}.svg\n   :alt: {plot.title}")
            parts.append(f"{plot.title} ({plot.y_label}; lowest and highest in brackets):")
            parts.append(plot.as_table().for_docs())
        parts += self.notes
        return "\n\n".join(parts)

    def for_file(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return attrs.asdict(self)


def shown(summary: Summary | None) -> str:
    """Format a median with the lowest and highest value of the rounds."""
    if summary is None:
        return "not measured"
    return f"{number(summary.median)} ({number(summary.low)} to {number(summary.high)})"


def number(value: float) -> str:
    """Format `value` with three digits or, from 1,000 on, as an integer."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004


def write_into_docs(topic: str, text: str, page: Path = PAGE) -> None:
    """Replace the text between the two comments that mark a topic in a page.

    Raises:
        ValueError: The page has no such place.
    """
    begin, end = f".. begin of {topic}, written by scripts/bench", f".. end of {topic}"
    place = re.compile(
        f"(?<=^{re.escape(begin)}$\n).*?(?=^{re.escape(end)}$)", re.MULTILINE | re.DOTALL
    )
    written, places = place.subn(lambda _: f"\n{text}\n\n", page.read_text("utf-8"))
    if places != 1:
        raise ValueError(f"{page} has no lines {begin!r} and {end!r} around the place for it")
    page.write_text(written, "utf-8")
