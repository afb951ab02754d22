"""What a study has measured so far, read from its results folder. A variant that was not run yet is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slam.files import read_json

ENOUGH = 3  # seeds on which a claim may rest


class Spread(NamedTuple):
    """A number over seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    def scaled(self, factor: float) -> Spread:
        return Spread(factor * self.mean, factor * self.low, factor * self.high, self.seeds)

    def text(self, digits: int = 2) -> str:
        if self.seeds == 1:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


class Results:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = sorted(file for file in folder.glob("*.json") if file.stem != "baselines")
        self.variants = {file.stem: read_json(file, "make study") for file in files}
        baselines = folder / "baselines.json"
        self.baselines = read_json(baselines, "make study") if baselines.exists() else {"rows": []}

    def __contains__(self, name: str) -> bool:
        return name in self.variants

    def values(self, name: str, metric: str, steps: int, guidance: float | None = None, point: int = -1) -> np.ndarray:
        """[seeds] of a variant's metric at a step count; at the last point of its curve unless told another."""
        found = []
        for seed in self.variants[name]["seeds"]:
            rows = seed["curve"][point]["rows"]
            found += [r[metric] for r in rows if r["steps"] == steps and guidance in (None, r["guidance"])][:1]
        return np.array(found)

    def spread(self, name: str, metric: str, steps: int, guidance: float | None = None) -> Spread | None:
        if name not in self:
            return None
        values = self.values(name, metric, steps, guidance)
        return spread(values) if len(values) else None

    def baseline(self, sampler: str, steps: int, guidance: float) -> dict | None:
        asked = (sampler, steps, guidance)
        rows = (row for row in self.baselines["rows"] if (row["sampler"], row["steps"], row["guidance"]) == asked)
        return next(rows, None)

    def curve(self, name: str, metric: str, steps: int) -> tuple[list[int], np.ndarray]:
        """Training steps, and [seeds, points]."""
        seeds = self.variants[name]["seeds"]
        at = [point["step"] for point in seeds[0]["curve"]]
        return at, np.stack([self.values(name, metric, steps, point=i) for i in range(len(at))], axis=1)

    def cost(self, name: str) -> dict:
        """Of one seed: passes of the U-Net per row of the batch, training steps, and mean seconds."""
        variant = self.variants[name]
        seconds, cpu = (np.mean([seed[key] for seed in variant["seeds"]]) for key in ("seconds", "cpu_seconds"))
        return {"passes": variant["passes"], "steps": variant["train"]["steps"], "seconds": seconds, "cpu": cpu}


def spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.min(values)), float(np.max(values)), len(values))


def verdict(ours: np.ndarray, theirs: np.ndarray) -> str:
    """What two sets of seeds say of which is lower: only ranges of three or more that do not meet separate them."""
    if min(len(ours), len(theirs)) < ENOUGH:
        return "too few seeds for a claim"
    if ours.max() < theirs.min():
        return "lower on every seed"
    if ours.min() > theirs.max():
        return "higher on every seed"
    return "not separated: the seeds' ranges meet"
