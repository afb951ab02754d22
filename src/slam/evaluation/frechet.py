"""The Frechet distance between two sets of features, each taken as a Gaussian (Dowson & Landau 1982; Heusel 2017).

N samples, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    mean: np.ndarray  # float64 [F]
    covariance: np.ndarray  # float64 [F, F]


def moments(features: np.ndarray) -> Moments:
    """Of features [N, F], N >= 2; unbiased, as in clean-fid."""
    features = np.asarray(features, np.float64)
    return Moments(features.mean(0), np.cov(features, rowvar=False))


def frechet_distance(a: Moments, b: Moments) -> float:
    """||mean_a - mean_b||^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), at least 0.

    With S_a = A A^T and S_b = B B^T the last trace is the sum of the singular values of A^T B: no square root of a
    product that is not symmetric, so it holds as well where there are fewer samples than features.
    """
    cross = np.linalg.svd(root(a.covariance).T @ root(b.covariance), compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    return max(0.0, float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def root(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T = covariance. Eigenvalues that are rounding errors are zero: their roots would not be small."""
    values, vectors = np.linalg.eigh(covariance)
    values[values < len(values) * np.finfo(np.float64).eps * values[-1]] = 0
    return vectors * np.sqrt(values)
