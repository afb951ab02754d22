"""From what was seen in each picture to the metrics of a row, each with a 95% interval.

N pictures, M of the reference, F features.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from slam.errors import SlamError
from slam.evaluation.bootstrap import RESAMPLES, interval, weights
from slam.evaluation.faithfulness import faithfulness
from slam.evaluation.frechet import DistanceTo, Moments, frechet_distance, moments, without_bias
from slam.evaluation.kid import Kid, mean_of_pairs
from slam.evaluation.neighbours import K, inside, radii
from slam.evaluation.observe import Observations

WIDE = 512  # features; for more, a resample's distance takes seconds
FEW, FEWER = 100, 20  # resamples of a distance, up to WIDE and beyond: its spread is right within 7% and 16%


class Target:
    """What a row's features are compared with. What takes time is worked out once."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features  # [M, F]

    @cached_property
    def moments(self) -> Moments:
        return moments(self.features)

    @cached_property
    def distance(self) -> DistanceTo:
        return DistanceTo(self.moments)

    @cached_property
    def pairs(self) -> float:
        return float(mean_of_pairs(self.features.astype(np.float64))[0])

    @cached_property
    def radii(self) -> np.ndarray:
        return radii(self.features)


def point_scores(seen: Observations, target: Moments, judged: bool) -> dict:
    """Without intervals. fid >= 0, clip_score in [-100, 100], faithfulness and captions_right in [0, 1] or None.

    Raises `SlamError` when one is not finite.
    """
    faithful = faithfulness(seen.attributes) if judged else None
    return finite(
        {
            "fid": frechet_distance(moments(seen.features), target),
            "clip_score": 100 * float(seen.cosines.mean()),
            "faithfulness": faithful and faithful.attributes,
            "captions_right": faithful and faithful.captions,
            "seconds_per_image": float(np.median(warm(seen.seconds))),
        }
    )


def scores(seen: Observations, target: Target, judged: bool, each: int = 1) -> dict:
    """Every metric M of a row, and `M_interval`: [low, high], both None where M is.

    fid, clip_score, faithfulness, captions_right, seconds_per_image: as `point_scores`. fid_infinity: the FID of
    infinitely many such pictures, None with too few for the estimate. kid: about 0 at best. precision, recall: in
    [0, 1]. `each` pictures in a row are of one prompt. Raises `SlamError` when a metric is not finite.
    """
    n, dims = seen.features.shape
    drawn = weights(n, RESAMPLES, each)
    few = drawn[: FEW if dims <= WIDE else FEWER]
    values = point_scores(seen, target.moments, judged)
    intervals = {"fid": interval(values["fid"], distances(seen.features, target.distance, few), 0)}
    intervals["clip_score"] = interval(values["clip_score"], 100 * mean(seen.cosines, drawn), -100, 100)
    intervals["seconds_per_image"] = of_median(values["seconds_per_image"], warm(seen.seconds))

    kid = Kid(seen.features, target.features, target.pairs)
    values |= {"kid": float(kid()[0]), "precision": None, "recall": None}
    intervals["kid"] = interval(values["kid"], kid(few))
    if n > K:
        real = inside(seen.features, target.features, target.radii)
        # Recall counts pictures of the reference: its interval is over those, with the row's pictures as they are.
        found = inside(target.features, seen.features, radii(seen.features))
        values |= {"precision": float(real.mean()), "recall": float(found.mean())}
        intervals["precision"] = interval(values["precision"], mean(real, drawn), 0, 1)
        intervals["recall"] = interval(values["recall"], mean(found, weights(len(found))), 0, 1)
    if judged:
        right, named = seen.attributes.T
        asked = named > 0
        shares = mean(right, drawn) / mean(named, drawn)
        intervals["faithfulness"] = interval(values["faithfulness"], shares, 0, 1)
        whole = mean((right == named) & asked, drawn) / mean(asked, drawn)
        intervals["captions_right"] = interval(values["captions_right"], whole, 0, 1)
    told = {f"{name}_interval": intervals.get(name) for name in values}
    values["fid_infinity"] = without_bias(values["fid"], seen.features, target.distance)
    return finite(values) | told | {"resamples": {"fid": len(few), "kid": len(few), "others": len(drawn)}}


def distances(features: np.ndarray, to: DistanceTo, weights: np.ndarray) -> np.ndarray:
    return np.array([to(moments(features, row)) for row in weights])


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of values [N] in each resample: [R]."""
    return weights @ values / weights.sum(1)


def warm(seconds: np.ndarray) -> np.ndarray:
    """Without the first pass, which also pays for memory and the choice of kernels; with it, if it is the only one."""
    return seconds[1:] if len(seconds) > 1 else seconds


def of_median(value: float, seconds: np.ndarray) -> list[float] | None:
    """None for fewer than five passes: nothing can be said of a spread."""
    if len(seconds) < 5:
        return None
    picked = np.random.default_rng(0).integers(len(seconds), size=(RESAMPLES, len(seconds)))
    return interval(value, np.median(seconds[picked], axis=1), 0)


def finite(values: dict) -> dict:
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise SlamError(f"{name}: expected a finite number, found {value}; look at the pictures and the weights")
    return values
