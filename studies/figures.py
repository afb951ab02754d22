"""The figures of the report: each takes the results and a path, and writes a PNG if there is something to draw."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slam.files import whole_file
from studies.results import Results
from studies.tables import STEPS

COLOURS = {"slam": "#1f5fbf", "lcm": "#d9730d"}
DISTANCES = (("fid", "FID"), ("to_teacher", "distance to the teacher"))
SKIPS = (20, 40, 60, 80, 100)
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}


def skipping_step(results: Results, path: Path) -> bool:
    """Fig 2a: both distances against k, with and without multiple estimation."""
    if not any(variant_of("slam", k, "") in results for k in SKIPS):
        return False
    figure, grid = panels()
    for (metric, _), row in zip(DISTANCES, grid, strict=True):
        for axes, steps in zip(row, STEPS, strict=True):
            for method, (style, suffix, label) in product(
                COLOURS, (("-o", "", "with ME"), ("--s", "-jump", "without"))
            ):
                names = {k: variant_of(method, k, suffix) for k in SKIPS}
                shown = [k for k in SKIPS if names[k] in results]
                spreads = [results.spread(names[k], metric, steps) for k in shown]
                means = [s.mean for s in spreads]
                errors = [[s.mean - s.low for s in spreads], [s.high - s.mean for s in spreads]]
                look = {"ms": 4, "capsize": 3, "color": COLOURS[method], "label": f"{method.upper()} {label}"}
                if shown:
                    axes.errorbar(shown, means, errors, fmt=style, **look)
            axes.set(xlabel="skipping step k", xticks=SKIPS)
    return save(figure, path)


def variant_of(method: str, k: int, suffix: str) -> str:
    """k = 20 is one solver step, with or without multiple estimation; k = 100 with it is the plain name."""
    return f"{method}-k20" if k == 20 else method if (k, suffix) == (100, "") else f"{method}-k{k}{suffix}"


def training(results: Results, path: Path, metric: str) -> bool:
    """Fig 2b: a distance against training steps, evaluations of the teacher, and time."""
    shown = [name for name in ("slam", "lcm", "slam-k20", "lcm-k20") if name in results]
    if not shown:
        return False
    units = ("training steps", "evaluations of the teacher per row of the batch", "CPU seconds")
    figure, grid = panels([dict(DISTANCES)[metric]] * len(units))
    for unit, row in enumerate(grid):
        for axes, steps in zip(row, STEPS, strict=True):
            for name in shown:
                at, values = results.curve(name, metric, steps)
                cost = results.cost(name)
                a_step = (1, cost["passes"] / cost["steps"] - 4, cost["cpu"] / cost["steps"])[unit]
                method, _, k = name.partition("-")
                style = {"color": COLOURS[method], "ls": "--" if k else "-", "marker": "o", "ms": 3}
                label = f"{method.upper()} {'k = 20' if k else 'k = 100 + ME'}"
                axes.plot(np.array(at) * a_step, values.mean(0), label=label, **style)
                band = {"color": COLOURS[method], "alpha": 0.12, "lw": 0}
                axes.fill_between(np.array(at) * a_step, values.min(0), values.max(0), **band)
            axes.set(xlabel=units[unit])
    return save(figure, path)


def error(results: Results, path: Path) -> bool:
    """Fig 2c: delta(t, k = 20)."""
    measured = {name for name, variant in results.variants.items() if variant["seeds"][0]["gap"]}
    both = {"trained at k = 100 + ME": ("slam", "slam-half", "lcm"), "trained at k = 20": ("slam-k20", "lcm-k20")}
    shown = {title: names for title, names in both.items() if measured & set(names)}
    if not shown:
        return False
    figure, grid = plt.subplots(1, len(shown), figsize=(5.5 * len(shown), 3.8), layout="constrained", squeeze=False)
    for axes, (title, names) in zip(grid[0], shown.items(), strict=True):
        for name in (name for name in names if name in measured):
            seeds = results.variants[name]["seeds"]
            deltas = np.array([[point["delta"] for point in seed["gap"]] for seed in seeds])
            t = [point["t"] for point in seeds[0]["gap"]]
            method, half = name.partition("-")[0], name == "slam-half"
            label = method.upper() + (", gamma = 1 in half" if half else "")
            axes.plot(t, deltas.mean(0), color=COLOURS[method], ls=":" if half else "-", label=label)
            axes.fill_between(t, deltas.min(0), deltas.max(0), color=COLOURS[method], alpha=0.12, lw=0)
        axes.set(xlabel="t", ylabel="delta(t, k = 20)", title=title, yscale="log")
        axes.legend(frameon=False)
    return save(figure, path)


def guidance(results: Results, path: Path) -> bool:
    """Fig 3: both distances against CLIP score as w goes through 3, 5, 8, 12."""
    names = {w: "" if w == 5 else f"-w{w}" for w in (3, 5, 8, 12)}
    if not any(f"slam{names[w]}" in results for w in (3, 8, 12)):
        return False
    figure, grid = panels()
    for (metric, _), row in zip(DISTANCES, grid, strict=True):
        for axes, steps in zip(row, STEPS, strict=True):
            for method in COLOURS:
                scales = [w for w in names if method + names[w] in results]
                x, y = (
                    [results.spread(method + names[w], what, steps).mean for w in scales]
                    for what in ("clip_score", metric)
                )
                axes.plot(x, y, "-o", ms=4, color=COLOURS[method], label=method.upper())
                for w, a, b in zip(scales, x, y, strict=True):
                    axes.annotate(f"w = {w}", (a, b), xytext=(5, 4), textcoords="offset points", fontsize=8)
            axes.set(xlabel="CLIP score")
    return save(figure, path)


def panels(labels: Sequence[str] = tuple(label for _, label in DISTANCES)) -> tuple:
    """A figure and its axes: a row for each of `labels`, of its y axes, and a column for each step count."""
    figure, grid = plt.subplots(len(labels), len(STEPS), figsize=(12, 3.2 * len(labels)), layout="constrained")
    for axes, steps in zip(grid[0], STEPS, strict=True):
        axes.set_title(f"{steps} step{'s' * (steps > 1)}")
    for label, row in zip(labels, grid, strict=True):
        row[0].set_ylabel(label)
    return figure, grid


def save(figure, path: Path) -> bool:
    """Write the figure, with one legend for all of its panels below them."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(figure.axes) > 2:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
    plt.close(figure)
    return True


def pictures(results: Results, path: Path, zoom: int = 2) -> bool:
    """Fig 4-12: the same prompts and noise across, a network and step count a row."""
    strips = [("teacher, DDIM 50", "baseline-ddim-50-w5", 0), ("teacher, DPM++ 4", "baseline-dpm++-4-w5", 0)]
    strips += [(f"{n.upper()}, {s} step{'s' * (s > 1)}", n, i) for i, s in enumerate(STEPS) for n in ("lcm", "slam")]
    strips = [(label, results.folder / f"{name}.png", row) for label, name, row in strips]
    strips = [strip for strip in strips if strip[1].exists()]
    if not strips:
        return False
    rows = []
    for label, file, row in strips:
        with Image.open(file) as image:
            side = image.width // 8
            part = image.convert("RGB").crop((0, row * side, image.width, (row + 1) * side))
        rows.append((label, part.resize((part.width * zoom, part.height * zoom), Image.Resampling.NEAREST)))
    captions = [textwrap.fill(text, 11) for text in results.baselines.get("captions", [])]
    top = 14 * max((text.count("\n") + 1 for text in captions), default=0) + 6
    width, height = side * zoom, rows[0][1].height + 4
    sheet = Image.new("RGB", (150 + rows[0][1].width, top + height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, text in enumerate(captions):
        pen.text((152 + i * width, 2), text, "black", ImageFont.load_default(10))
    for i, (label, part) in enumerate(rows):
        pen.text((4, top + i * height + height // 2 - 9), label, "black", ImageFont.load_default(15))
        sheet.paste(part, (150, top + i * height))
    with whole_file(path) as partial:
        sheet.save(partial, "PNG")
    return True
