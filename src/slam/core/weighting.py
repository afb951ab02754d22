"""Weights of a sample's loss by the sub-path [s, t] that it was drawn on: `weight(t, s, schedule) -> [B]`.

Not the paper's, which weighs all sub-paths alike. r = sigma / alpha.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slam.core.schedule import Schedule


def uniform(t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    return torch.ones(len(t), device=t.device)


def by_step(t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """1 / (r_t - r_s): the error per step of the noise level (Song & Dhariwal 2024, Sec 3.1)."""
    return 1 / (_r(t, schedule) - _r(s, schedule))


def by_noise(t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """1 / r_t: an error of z_0 in units of the noise prediction that made it."""
    return 1 / _r(t, schedule)


def _r(t: Tensor, schedule: Schedule) -> Tensor:
    return (schedule.sigma(t) / schedule.alpha(t)).flatten()
