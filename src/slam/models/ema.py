"""The running average theta^- of the student, the target of Eq 17."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(average: nn.Module, module: nn.Module, weight: Tensor) -> None:
    """average <- (1 - weight) average + weight module, in a few fused calls: Algorithm 1's last line, where the number
    `weight` is 1 - mu. At 0 the average keeps its bits. Frozen parameters, the base of adapters, are the same in both.
    """
    pairs = [pair for pair in zip(average.parameters(), module.parameters(), strict=True) if pair[1].requires_grad]
    torch._foreach_lerp_(*map(list, zip(*pairs, strict=True)), [weight] * len(pairs))
