"""The three metrics of one row, taken batch by batch, so that no more than a batch of pictures is ever held."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from slam.errors import SlamError
from slam.evaluation import faithfulness, features
from slam.evaluation.clip_score import ClipScore
from slam.evaluation.features import FeatureNetwork
from slam.evaluation.frechet import Moments, frechet_distance, moments
from slam.evaluation.generate import Drawn
from slam.models.judge import Judge


@dataclass(frozen=True)
class Instruments:
    """All that measures: the same for every row of a table."""

    network: FeatureNetwork
    reference: Moments  # of the network's features of the reference pictures
    clip: ClipScore
    texts: Tensor  # [N, E], the captions' CLIP embeddings, prefix included
    judge: Judge | None
    captions: list[str]  # N
    teacher: Moments | None = None  # of the teacher's own pictures of the captions, if the distance to it is asked


def measure(drawn: Iterable[Drawn], instruments: Instruments, keep: int) -> tuple[dict, np.ndarray]:
    """The metrics of a row, and its first `keep` pictures uint8 [keep, H, W, 3].

    fid: Frechet distance >= 0; to_teacher, where asked: the same to the teacher's pictures. clip_score: in [-100, 100].
    faithfulness, captions_right: in [0, 1], None without a judge. seconds_per_image: the median over batches, so that a
    first batch that warms up does not count.
    Raises `SlamError` when a metric is not finite.
    """
    found, cosines, read, seconds, kept = [], [], [], [], []
    for rows, pictures, took in drawn:
        arrays = features.rows(pictures)
        found.append(instruments.network(arrays))
        cosines.append(instruments.clip.cosines(pictures, instruments.texts[rows]))
        seconds.append(took / len(pictures))
        if instruments.judge:
            read.append(faithfulness.read(instruments.judge, pictures, instruments.captions[rows]))
        if rows.start < keep:
            kept.append(arrays[: keep - rows.start])
    faithful = faithfulness.faithfulness(np.concatenate(read)) if read else None
    own = moments(np.concatenate(found))
    metrics = {
        "fid": frechet_distance(own, instruments.reference),
        **({"to_teacher": frechet_distance(own, instruments.teacher)} if instruments.teacher else {}),
        "clip_score": 100 * float(np.concatenate(cosines).mean()),
        "faithfulness": faithful and faithful.attributes,
        "captions_right": faithful and faithful.captions,
        "seconds_per_image": float(np.median(seconds)),
    }
    for name, value in metrics.items():
        if value is not None and not math.isfinite(value):
            raise SlamError(f"{name}: expected a finite number, found {value}; look at the pictures and the weights")
    return metrics, np.concatenate(kept)
