"""KID: the squared maximum mean discrepancy of two sets of features under a cubic kernel (Binkowski et al. 2018).

N M samples, F features, R resamples.
"""

from __future__ import annotations

import numpy as np

ROWS = 2048  # of the kernel matrix at once


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / F + 1)^3 of every pair, [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


class Kid:
    """The unbiased estimate between features [N, F] and the reference [M, F]; it may be a little under 0.

    clean-fid takes the mean over 100 random subsets of 1,000 of each side instead; the same number, with more noise.
    Nothing of size N x M is held: N and M times ROWS.
    """

    def __init__(self, features: np.ndarray, reference: np.ndarray, of_reference: float | None = None) -> None:
        """`of_reference`: the reference's own `mean_of_pairs`, if it is at hand."""
        self.features = np.asarray(features, np.float64)
        reference = np.asarray(reference, np.float64)
        self.of_reference = mean_of_pairs(reference)[0] if of_reference is None else of_reference
        self.across = sum_of_rows(self.features, reference) / len(reference)  # [N]

    def __call__(self, weights: np.ndarray | None = None) -> np.ndarray:
        """float64 [R]: one estimate for each row of `weights` [R, N], how often each picture counts; or for all once.

        A picture and its own copy make no pair: the kernel of a thing with itself is what unbiased leaves out.
        """
        across = self.across.mean() if weights is None else weights @ self.across / weights.sum(1)
        return mean_of_pairs(self.features, weights) + self.of_reference - 2 * across


def mean_of_pairs(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """For each row w of weights [R, N] the mean of kernel(x_i, x_j) over i != j, weighted by w_i w_j: [R]; of all alike
    without weights: [1]."""
    weights = np.ones((1, len(x))) if weights is None else weights.astype(np.float64)
    total = np.zeros(len(weights))
    for start in range(0, len(x), ROWS):
        part = slice(start, start + ROWS)
        block = kernel(x[part], x)  # [n, N]
        block[np.arange(len(block)), start + np.arange(len(block))] = 0
        total += ((weights[:, part] @ block) * weights).sum(1)
    return total / (np.square(weights.sum(1)) - np.square(weights).sum(1))


def sum_of_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum of kernel(x_i, y_j) over j: [N]."""
    return np.concatenate([kernel(x[start : start + ROWS], y).sum(1) for start in range(0, len(x), ROWS)])
