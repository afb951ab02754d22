"""Precision and recall of generated pictures (Kynkaanniemi et al. 2019): is a picture inside the other set's manifold?

The manifold of a set is the union of balls around its samples, each out to its k-th nearest neighbour in the set.
N M samples, F features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

K = 3
ROWS = 1024  # of the distance matrix at once


def radii(x: np.ndarray, k: int = K) -> np.ndarray:
    """The squared distance from each of x [N, F] to its k-th nearest other one: float64 [N]. Needs N > k."""
    found = []
    for start, squared in squared_distances(x, x):
        squared[np.arange(len(squared)), start + np.arange(len(squared))] = -1  # itself: always the nearest
        found.append(np.partition(squared, k, axis=1)[:, k])
    return np.concatenate(found)


def inside(x: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Whether each of x [N, F] lies in at least one ball around centres [M, F] of squared radii [M]: bool [N]."""
    return np.concatenate([(squared <= radii).any(1) for _, squared in squared_distances(x, centres)])


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of the matrix of squared distances [N, M], each with the index of its first row."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    of_y = np.square(y).sum(1)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS]
        yield start, np.maximum(np.square(part).sum(1)[:, None] + of_y - 2 * part @ y.T, 0)
