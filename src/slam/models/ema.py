"""The running average theta^- of the student, the target of Eq 17."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, module: nn.Module, mu: float) -> None:
    """average <- mu average + (1 - mu) module, all parameters in a few fused calls (Algorithm 1's last line)."""
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - mu)
