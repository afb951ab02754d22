"""The picture of the filter: how the values of each limit's column are spread, with the cuts drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from slam.config_data import Limit, Limits
from slam.data.filter.limits import LIMITS

STAYS, GOES, GONE = "#2f6f9f", "#e0a48c", "#b0512c"  # bars that stay, bars that go, and their number
INK, FAINT, GRID = "#2b2b2b", "#777777", "#e6e6e6"
COLUMNS = 2  # of panels
FATES = {"keep": "kept", "drop": "dropped", "stop": "not allowed"}  # of the rows without a value


@style.context("default")  # whatever else this process draws, or the user's matplotlibrc says
def draw(counts: dict[str, dict[str, Any]], limits: Limits, path: Path) -> None:
    """A panel for each column that has a value; the same counts give the same bytes."""
    shown = [name for name in LIMITS if any(counts[name]["bins"])]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(5.6 * COLUMNS, 2.7 * rows + 0.5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axes, name in zip(panels, shown, strict=False):
        _panel(axes, name, counts[name], getattr(limits, name))
    for axes in list(figure.axes)[len(shown) :]:
        axes.set_axis_off()
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.12)
    figure.suptitle(
        "Pictures that are there, by the column of each limit, before duplicates go", color=INK, fontsize=12
    )
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _panel(axes: Axes, name: str, counts: dict[str, Any], limit: Limit | None) -> None:
    edges, bins = LIMITS[name].edges, np.array(counts["bins"])
    low = edges[0] if limit is None or limit.min is None else limit.min
    high = edges[-1] if limit is None or limit.max is None else limit.max
    for colour, start, end in ((GOES, edges[0], low), (STAYS, low, high), (GOES, high, edges[-1])):
        if end > start:  # the bin that holds the cut is drawn in both colours, up to it and from it
            inside = np.clip(edges, start, end)
            drawn = inside[1:] > inside[:-1]
            axes.bar(inside[:-1][drawn], bins[drawn], np.diff(inside)[drawn], align="edge", color=colour, linewidth=0)
    if LIMITS[name].log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.32 * bins.max())  # room for the numbers
    for cut in (limit.min, limit.max) if limit else ():
        if cut is not None:
            axes.axvline(cut, ymax=0.86, color=INK, linewidth=1.2)
    _numbers(axes, counts, limit)
    axes.set_title(LIMITS[name].label, loc="left", fontsize=10, color=INK, fontweight="bold")
    fate = f", {FATES[limit.missing]}" if limit and counts["missing"] else ""
    axes.set_title(f"{counts['missing']:,} without a value{fate}", loc="right", fontsize=8.5, color=FAINT)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= bins.max()])  # none where the numbers are
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")


def _numbers(axes: Axes, counts: dict[str, Any], limit: Limit | None) -> None:
    """Above the bars, from left to right: below the cut, within, above."""
    told = [(counts["within"], "stay" if limit else "limit off", STAYS)]
    if limit and limit.min is not None:
        told.insert(0, (counts["low"], f"below {limit.min:g}", GONE))
    if limit and limit.max is not None:
        told.append((counts["high"], f"above {limit.max:g}", GONE))
    whole = max(1, counts["low"] + counts["within"] + counts["high"])
    places = {1: [0.99], 2: [0.01, 0.99], 3: [0.01, 0.5, 0.99]}[len(told)]
    for place, (number, what, colour) in zip(places, told, strict=True):
        side = {0.01: "left", 0.5: "center", 0.99: "right"}[place]
        text = f"{number:,} {what} ({number / whole:.1%})"
        axes.text(place, 0.97, text, transform=axes.transAxes, ha=side, va="top", fontsize=8.5, color=colour)


def _short(number: float, _: object) -> str:
    """1500000 as 1.5M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"
