"""The report's tables and sentences, made from the results: nothing in them is written by hand."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from slam.files import whole_file
from studies.results import ENOUGH, Results, Spread, spread, verdict

STEPS = (1, 2, 4)


class Metric(NamedTuple):
    key: str
    label: str
    digits: int
    scale: float


FID, TO_TEACHER = Metric("fid", "FID", 2, 1), Metric("to_teacher", "to teacher", 2, 1)
CLIP, FAITHFUL = Metric("clip_score", "CLIP score", 1, 1), Metric("faithfulness", "faithful, %", 1, 100)
DISTANCES, WORDS = (FID, TO_TEACHER), (CLIP, FAITHFUL)


class Row(NamedTuple):
    """A line of a table: numbers over seeds, by metric key and step count, and what its training cost."""

    label: str
    numbers: dict[tuple[str, int], Spread]
    cost: tuple[str, str] = ("", "")  # passes of the U-Net, CPU seconds; nothing for the training-free


def student(results: Results, name: str, label: str, guidance: float | None = None) -> list[Row]:
    """[] for a variant that was not run."""
    numbers = {(m.key, n): results.spread(name, m.key, n, guidance) for m in (*DISTANCES, *WORDS) for n in STEPS}
    if None in numbers.values():
        return []
    cost = results.cost(name)
    return [Row(label, numbers, (f"{cost['passes']:,}", f"{cost['cpu']:.0f}"))]


def training_free(
    results: Results, sampler: str, label: str, guidance: float, steps: Sequence[int] = STEPS
) -> list[Row]:
    """[] for a sampler that was not measured. A single step count, as the teacher's 50, stands in the first column."""
    rows = [results.baseline(sampler, n, guidance) for n in steps]
    if None in rows:
        return []
    metrics = (*DISTANCES, *WORDS)
    return [
        Row(label, {(m.key, n): spread([row[m.key]]) for m in metrics for n, row in zip(STEPS, rows, strict=False)})
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def tables(rows: Sequence[Row]) -> str:
    """Two of them: the distances with what each row cost, and how well the pictures follow their captions."""
    if not rows:
        return "Not run yet.\n\n"
    head, cells = columns(DISTANCES), [[*line(row, DISTANCES), *row.cost] for row in rows]
    text = table(["", *head, "passes", "CPU s"], [[row.label, *c] for row, c in zip(rows, cells, strict=True)])
    return text + table(["", *columns(WORDS)], [[row.label, *line(row, WORDS)] for row in rows])


def columns(metrics: Sequence[Metric]) -> list[str]:
    return [f"{metric.label}, {n}" for metric in metrics for n in STEPS]


def line(row: Row, metrics: Sequence[Metric]) -> list[str]:
    found = [(metric, row.numbers.get((metric.key, n))) for metric in metrics for n in STEPS]
    return [number.scaled(metric.scale).text(metric.digits) if number else "" for metric, number in found]


def compare(results: Results, ours: str, theirs: str, says: str) -> str:
    """Both distances of two variants at each step count, with what the seeds say; "" while one is missing."""
    if ours not in results or theirs not in results:
        return ""
    lines = [f"* {says}\n"]
    for metric in DISTANCES:
        parts = []
        for n in STEPS:
            a, b = (results.values(name, metric.key, n) for name in (ours, theirs))
            means = f"{a.mean():.{metric.digits}f} against {b.mean():.{metric.digits}f}"
            parts.append(f"{n} step{'s' * (n > 1)} {means}, {verdict(a, b)}")
        lines.append(f"  * {metric.label}: {'; '.join(parts)}.\n")
    return "".join(lines)


def best(results: Results, names: dict[str, str], against: str) -> list[str]:
    """For each distance and step count the variant of least mean, among those of `names` (name -> label) with enough
    seeds, and what the seeds say of it against the variant `against`. [] while that was not run."""
    cells = []
    for metric in DISTANCES:
        for n in STEPS:
            values = {name: results.values(name, metric.key, n) for name in names if name in results}
            values = {name: found for name, found in values.items() if len(found) >= ENOUGH}
            if against not in values:
                return []
            least = min(values, key=lambda name: values[name].mean())
            said = "" if least == against else f": {verdict(values[least], values[against])}"
            cells.append(f"{names[least]} {values[least].mean():.{metric.digits}f}{said}")
    return cells


def write_csv(results: Results, path: Path) -> None:
    """One line for every variant, seed, point of the curve, step count and guidance scale; the baselines too."""
    about, asked = ("variant", "seed", "train_steps"), ("sampler", "steps", "guidance")
    measured = (*(metric.key for metric in (*DISTANCES, *WORDS)), "captions_right", "seconds_per_image")
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*about, *asked, *measured), lineterminator="\n")
        writer.writeheader()
        writer.writerows({"variant": "teacher", **row} for row in results.baselines["rows"])
        for name, variant in results.variants.items():
            for seed in variant["seeds"]:
                for point in seed["curve"]:
                    common = {"variant": name, "seed": seed["seed"], "train_steps": point["step"]}
                    writer.writerows({**common, **row} for row in point["rows"])
