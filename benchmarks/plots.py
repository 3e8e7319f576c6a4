"""Draws the plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.report import Plot, number

STYLE: dict[Any, Any] = {
    "figure.figsize": (7.6, 3.8),
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "axes.labelcolor": "#374151",
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    # Use the same ids in each run, so that a plot changes only if its numbers do.
    "svg.hashsalt": "lightbus",
    # Store text as text, which keeps the files small.
    "svg.fonttype": "none",
}


def draw(plot: Plot, folder: Path) -> Path:
    """Draw a plot into `folder`, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{plot.name}.svg"
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots()
        for line in plot.lines:
            places = sorted(line.points)
            found = [line.points[place] for place in places]
            axes.plot(
                places,
                [summary.median for summary in found],
                color=line.colour,
                linestyle="--" if line.is_dashed else "-",
                marker="o",
                markersize=4.5,
                linewidth=2,
                label=line.label,
            )
            axes.fill_between(
                places,
                [summary.low for summary in found],
                [summary.high for summary in found],
                color=line.colour,
                alpha=0.12,
                linewidth=0,
            )
        _label(axes, plot)
        figure.tight_layout()
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
    return file


def _label(axes: Axes, plot: Plot) -> None:
    places = sorted({place for line in plot.lines for place in line.points})
    axes.set_title(plot.title, pad=12)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if not plot.x_is_linear:
        axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,.0f}" for place in places])
    if plot.y_from_zero:
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
