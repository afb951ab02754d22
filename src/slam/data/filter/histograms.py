"""How the values of each limit's column are spread, counted shard by shard; `picture` draws it."""

from __future__ import annotations

from typing import Any

import numpy as np

from slam.config_data import Limit, Limits
from slam.data.filter.limits import LIMITS, Values, beyond


def count(columns: dict[str, Values], had: np.ndarray, limits: Limits) -> dict[str, dict[str, Any]]:
    """For each of LIMITS, of the rows `had` (bool [N], those with a picture): bins, missing, low, high, within."""
    return {name: _count(name, column, had, getattr(limits, name)) for name, column in columns.items()}


def _count(name: str, column: Values, had: np.ndarray, limit: Limit | None) -> dict[str, Any]:
    edges = LIMITS[name].edges
    numbers = column.numbers[had & ~column.missing]
    bins, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    low, high = (int(side.sum()) for side in beyond(numbers, limit)) if limit else (0, 0)
    return {
        "bins": bins.tolist(),
        "missing": int((had & column.missing).sum()),
        "low": low,
        "high": high,
        "within": len(numbers) - low - high,
    }


def total(counts: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The sum over shards."""
    return {
        name: {
            part: np.sum([shard[name][part] for shard in counts], axis=0).tolist()
            for part in ("bins", "missing", "low", "high", "within")
        }
        for name in LIMITS
    }
