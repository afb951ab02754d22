"""What an evaluation leaves for people and programs: the records, the table, and three pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slam import paths
from slam.evaluation import picture, report, tradeoff
from slam.evaluation.rows import Row
from slam.evaluation.work import Studio
from slam.files import write_json


class Done(NamedTuple):
    """A finished row."""

    row: Row
    record: dict
    pictures: np.ndarray  # uint8 [evaluate.rows, H, W, 3], the first

    @property
    def is_student(self) -> bool:
        return self.row.model == "student"


def write_pages(done: Sequence[Done], studio: Studio, folder: Path) -> None:
    """metrics.json, table.md, samples.png, worst.png and tradeoff.png in `folder`, under the names in `paths`."""
    records = [one.record for one in done]
    drawn = [one for one in done if one.row.model != "vae"]
    columns = [(one.record, one.pictures) for one in drawn]
    picture.write_samples(columns, studio.reference.captions[: studio.config.rows], folder / paths.SAMPLES.name)
    write_worst(drawn, studio, folder / paths.WORST.name)
    tradeoff.write_tradeoff(records, folder / paths.TRADEOFF.name)
    report.write_table(records, folder / paths.TABLE.name)
    write_json(folder / paths.METRICS.name, records)


def write_worst(drawn: Sequence[Done], studio: Studio, path: Path) -> None:
    """The prompts that CLIP finds worst drawn by the student (or what is measured) at its most steps; beside them what
    every other model draws of them at its most steps: is it the prompt, or the student?"""
    most: dict[str, Done] = {}
    for one in drawn:
        if one.row.model not in most or one.row.steps > most[one.row.model].row.steps:
            most[one.row.model] = one
    judged = most.get("student") or drawn[0]
    indices = [entry["index"] for entry in judged.record["worst"]][: studio.protocol.block]
    captions = [f"{entry['caption']} ({entry['clip_score']:.0f})" for entry in judged.record["worst"]][: len(indices)]
    shown = [judged, *(one for one in most.values() if one is not judged)]
    picture.write_samples([(one.record, studio.pictures(one.row, indices)) for one in shown], captions, path)
