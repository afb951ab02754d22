"""The trade-off as a picture: how good against how many steps, and against how long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from slam.evaluation.report import title
from slam.files import whole_file

INK, FAINT, GRID = "#2b2b2b", "#777777", "#e6e6e6"
# Colours that stay apart for colour-blind eyes (Okabe & Ito), and a mark each.
LOOKS = {
    "student": ("#d55e00", "o"),
    "champion": ("#cc79a7", "D"),
    "ddim": ("#0072b2", "s"),
    "dpm": ("#e69f00", "P"),
    "dpm++": ("#009e73", "^"),
    "unipc": ("#56b4e9", "v"),
}
ASIDE = 1.03  # times the step count, from line to line
PANELS = (("fid", "FID, lower is better"), ("clip_score", "CLIP score, higher is better"))


def write_tradeoff(records: Sequence[dict], path: Path) -> None:
    """A PNG: FID and CLIP score with their intervals against steps and milliseconds, a line for each sampler.

    The same records give the same bytes.
    """
    figure = Figure(figsize=(11, 7.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharey="row")
    drawn = [record for record in records if record["steps"]]
    floor = next((record for record in records if not record["steps"]), None)
    for line, (metric, name) in zip(panels, PANELS, strict=True):
        for axes, along in zip(line, ("steps", "milliseconds a picture"), strict=True):
            draw_panel(axes, drawn, metric, along == "steps")
            if floor:
                axes.axhline(floor[metric], color=FAINT, linewidth=1, linestyle=":", label="autoencoder, the bound")
            axes.set_xlabel(along, color=INK)
        line[0].set_ylabel(name, color=INK)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": None})


def draw_panel(axes: Axes, records: Sequence[dict], metric: str, by_steps: bool) -> None:
    def key(record: dict) -> tuple[str, str]:
        return record["model"], record["sampler"]

    lines = {name: list(members) for name, members in groupby(sorted(records, key=key), key=key)}
    for index, ((model, sampler), members) in enumerate(lines.items()):
        line = sorted(members, key=lambda record: record["steps"])
        aside = ASIDE ** (index - (len(lines) - 1) / 2)  # so that no interval hides another
        x = [aside * record["steps"] if by_steps else 1000 * record["seconds_per_image"] for record in line]
        y = [record[metric] for record in line]
        spans = [record.get(f"{metric}_interval") or [value, value] for record, value in zip(line, y, strict=True)]
        below = [max(0, value - low) for value, (low, _) in zip(y, spans, strict=True)]
        above = [max(0, high - value) for value, (_, high) in zip(y, spans, strict=True)]
        colour, mark = LOOKS[model if model in LOOKS else sampler]
        look = {"color": colour, "marker": mark, "markersize": 6, "linewidth": 1.6, "capsize": 3, "elinewidth": 1}
        axes.errorbar(x, y, [below, above], label=title(line[0]), **look)
    axes.set_xscale("log", base=2 if by_steps else 10)
    if by_steps:
        axes.set_xticks(sorted({record["steps"] for record in records}))
    else:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
