"""The Frechet distance between two sets of features, each taken as a Gaussian (Dowson & Landau 1982; Heusel 2017).

N samples, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HALVES = 8  # random halves of the pictures whose distances are averaged


class Moments(NamedTuple):
    mean: np.ndarray  # float64 [F]
    covariance: np.ndarray  # float64 [F, F]


def moments(features: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """Of features [N, F], N >= 2; unbiased, as in clean-fid. `weights` [N]: how often each counts."""
    features = np.asarray(features, np.float64)
    if weights is not None:
        features, weights = features[weights > 0], weights[weights > 0]
        return Moments(weights @ features / weights.sum(), np.cov(features, rowvar=False, fweights=weights))
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


class DistanceTo:
    """The distance to one set, many times over. The root of its covariance is taken once; one eigendecomposition a
    time instead of three costs digits that a spread does not need (about 1e-6 of the distance)."""

    def __init__(self, reference: Moments) -> None:
        self.reference, self.root = reference, root(reference.covariance)

    def __call__(self, own: Moments) -> float:
        product = np.linalg.eigvalsh(self.root.T @ own.covariance @ self.root)
        apart = np.square(own.mean - self.reference.mean).sum()
        traces = np.trace(own.covariance) + np.trace(self.reference.covariance)
        return float(apart + traces - 2 * np.sqrt(np.maximum(product, 0)).sum())


def without_bias(distance: float, features: np.ndarray, to: DistanceTo) -> float | None:
    """The distance that infinitely many such pictures would have (FID-infinity, Chong & Forsyth 2020).

    A set of N is too far by about c / N, so a half of it by 2c / N: twice the distance of all, less the mean of halves.
    None with too few pictures for that law: a half must have more than there are features.
    """
    n, dims = features.shape
    if n // 2 <= dims:
        return None
    rng = np.random.default_rng(0)
    halves = [to(moments(features[rng.permutation(n)[: n // 2]])) for _ in range(HALVES)]
    return 2 * distance - float(np.mean(halves))
