"""How sure a number is: 95% intervals from resampling its pictures (Efron 1979).

R resamples, N pictures.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 200
WIDTH = 1.96  # standard errors on each side


def weights(n: int, resamples: int = RESAMPLES, each: int = 1) -> np.ndarray:
    """How often each of `n` pictures is drawn, with replacement: int64 [R, N], each row adds up to `n`.

    The `each` pictures of one prompt, which stand together, are drawn together: they are not independent.
    """
    prompts = n // each
    counts = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return counts.repeat(each, axis=1)


def interval(value: float, resampled: np.ndarray, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """`value` and 1.96 standard deviations of the `resampled` [R] around it, cut to what it can be, [low, high].

    Not their percentiles: a resample holds pictures twice, which moves a distance (FID, KID) up as a smaller set does,
    and would leave the value outside its own interval. The spread is right all the same; a distance that is hardly more
    than its bias has one up to three times too wide.
    """
    spread = WIDTH * float(np.std(resampled, ddof=1))
    return [max(low, value - spread), min(high, value + spread)]
