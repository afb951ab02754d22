"""The error of Fig 2c: how far apart a network's predictions of z_0 are at the two ends of a sub-path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slam.core.schedule import Schedule


@torch.no_grad()
def gap(net: Callable, z0: Tensor, c: Tensor | None, noise: Tensor, t: Tensor, k: int, schedule: Schedule) -> Tensor:
    """delta(t, k) = |f(x_t, t) - f(x_{t-k}, t-k)| per sample [B], the mean over elements; both points share `noise`."""

    def f(time: Tensor) -> Tensor:
        x = schedule.alpha(time) * z0 + schedule.sigma(time) * noise
        return (x - schedule.sigma(time) * net(x, time, c)) / schedule.alpha(time)  # Sec 4.1

    return (f(t) - f((t - k).clamp(min=0))).abs().flatten(1).mean(1)
