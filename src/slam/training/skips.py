"""Steps that were skipped because their loss or gradient was not finite, and when to give a run up."""

from __future__ import annotations

import math
from pathlib import Path

from slam.config import Train
from slam.errors import SlamError
from slam.training import checkpoint
from slam.training.scaler import FLOOR


class Skips:
    """Counts them, over all parts of a run: `journal` has the steps before this part."""

    def __init__(self, limit: int, journal: list[dict]) -> None:
        self.limit = math.inf  # what is past stops nobody
        self.total = self.in_a_row = 0
        self.count((line["skipped"], line.get("loss_scale", FLOOR)) for line in journal)
        self.limit = limit

    def count(self, steps) -> None:
        """`steps`: (skipped, loss scale) of each, in order, up to the one that makes it too many."""
        for skipped, scale in steps:
            if not skipped:
                self.in_a_row = 0
            elif scale <= FLOOR:  # above it, fp16 is still looking for its scale
                self.in_a_row += 1
            self.total += bool(skipped)
            if skipped and self.too_many:
                return

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= self.limit

    @property
    def told(self) -> dict[str, int]:
        return {"skipped": self.total} if self.total else {}


def given_up(skips: Skips, config: Train, root: Path, done: int) -> SlamError:
    """Of the run that ends at step `done`: what happened, and the verified checkpoint that the run is back at."""
    passed_over: list[str] = []
    good = checkpoint.newest_whole(root, passed_over.append)
    back = f"the run is back at {good}, whose files were verified" if good else "there is no checkpoint before them"
    return SlamError(
        "\n".join(
            [
                *passed_over,
                f"step {done}: loss or gradient of the last {skips.in_a_row} steps was not finite (train.skips = "
                f"{skips.limit}). They were skipped, {skips.total} in all: they changed neither weights nor averages, "
                f"and {back}. Try a lower train.lr, now {config.lr}, or another train.precision, now "
                f"{config.precision}",
            ]
        )
    )
