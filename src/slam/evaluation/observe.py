"""What is seen in each picture. A batch of pictures is held at a time; what is seen in 30,000 is a few hundred MB.

N pictures, B batch, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slam.evaluation import faithfulness, features
from slam.evaluation.clip_score import ClipScore
from slam.evaluation.features import FeatureNetwork
from slam.evaluation.generate import Drawn
from slam.models.judge import Judge


@dataclass(frozen=True)
class Instruments:
    """The networks that look: the same for every row of a table."""

    network: FeatureNetwork  # of FID, KID, precision and recall
    clip: ClipScore
    clip_prefix: str  # before each caption
    judge: Judge | None


class Observations(NamedTuple):
    """Of N pictures in the order of their captions."""

    features: np.ndarray  # float32 [N, F]
    cosines: np.ndarray  # float32 [N], of picture and caption in CLIP's space
    attributes: np.ndarray  # int64 [N, 2]: right and named; zeros without a judge
    digests: np.ndarray  # uint8 [N, 32]: sha256 of each picture's pixels
    seconds: np.ndarray  # float64: of one picture, once for each pass of the networks that drew
    shown: np.ndarray  # uint8 [S, H, W, 3]: the first pictures, those that a report shows


def observe(
    drawn: Iterable[Drawn], captions: Sequence[str], instruments: Instruments, shown: int, block: int = 1
) -> Observations:
    """Of pictures as they are drawn; `captions` are those of the whole row, `shown` how many of the row are kept.

    The networks see at least `block` pictures at once, copies of the last filling it up: what is seen in a picture
    then is the same to the last bit however the row is cut.
    """
    parts = []
    for rows, pictures, seconds in drawn:
        count, own = len(pictures), list(captions[rows])
        full, texts = filled(pictures, block), own + own[-1:] * (block - count)
        arrays = features.rows(pictures)
        embedded = instruments.clip.texts([instruments.clip_prefix + text for text in texts])
        parts.append(
            Observations(
                instruments.network(features.rows(full))[:count],
                instruments.clip.cosines(full, embedded).numpy()[:count],
                faithfulness.read(instruments.judge, full, texts)[:count]
                if instruments.judge
                else np.zeros((count, 2), np.int64),
                np.stack([np.frombuffer(sha256(picture.tobytes()).digest(), np.uint8) for picture in arrays]),
                np.array([seconds / count]),
                arrays[: max(0, shown - rows.start)],
            )
        )
    return join(parts)


def filled(pictures: Tensor, block: int) -> Tensor:
    """At least `block` pictures [B, ...], the last one repeated."""
    missing = block - len(pictures)
    return pictures if missing <= 0 else torch.cat([pictures, pictures[-1:].expand(missing, *pictures.shape[1:])])


def join(parts: Sequence[Observations]) -> Observations:
    return Observations(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def pictures_sha256(observed: Observations) -> str:
    """One hash of all pictures: two rows have the same if and only if every pixel is the same."""
    return sha256(observed.digests.tobytes()).hexdigest()
