"""Running averages of the student: theta^-, the target of Eq 17, and others for `select` to choose from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def ema_update(average: Iterable[Tensor], values: Iterable[Tensor], weight: Tensor, foreach: bool = True) -> None:
    """average <- (1 - weight) average + weight values: Algorithm 1's last line, where the number `weight` is 1 - mu.
    At 0 the average keeps its bits. In a few calls for all tensors, or with `foreach` off in one for each.
    """
    if not foreach:
        for own, value in zip(average, values, strict=True):
            own.lerp_(value, weight)
        return
    average = list(average)
    torch._foreach_lerp_(average, list(values), [weight] * len(average))
