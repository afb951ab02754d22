"""Running averages of the student: theta^-, the target of Eq 17, and others for `select` to choose from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_update(average: Iterable[Tensor], values: Iterable[Tensor], weight: Tensor) -> None:
    """average <- (1 - weight) average + weight values, in a few fused calls: Algorithm 1's last line, where the number
    `weight` is 1 - mu. At 0 the average keeps its bits.
    """
    average = list(average)
    torch._foreach_lerp_(average, list(values), [weight] * len(average))
