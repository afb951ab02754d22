"""Faithfulness: of the attributes that a caption names, the share that the judge reads from the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from slam.data.shapes import named
from slam.errors import SlamError
from slam.models.judge import Judge


class Faithful(NamedTuple):
    attributes: float  # share in [0, 1] of all attributes named
    captions: (
        float  # share in [0, 1] of captions whose every named attribute is right; those that name none are left out
    )


def read(judge: Judge, pictures: Tensor, captions: Sequence[str]) -> np.ndarray:
    """int64 [B, 2]: for each picture, uint8 [B, 3, S, S], how many attributes are right and how many are named."""
    counts = []
    for seen, caption in zip(judge.read(pictures), captions, strict=True):
        asked = named(caption)
        counts.append((sum(seen[attribute] == value for attribute, value in asked.items()), len(asked)))
    return np.array(counts)


def faithfulness(counts: np.ndarray) -> Faithful:
    """From the counts [N, 2] of `read`. Raises `SlamError` when no caption names an attribute."""
    right, asked = counts[counts[:, 1] > 0].T
    if not len(asked):
        raise SlamError(
            "evaluate.judge: expected captions that name attributes of the tiny world, found none; set it to null for"
            " other captions"
        )
    return Faithful(float(right.sum() / asked.sum()), float((right == asked).mean()))
