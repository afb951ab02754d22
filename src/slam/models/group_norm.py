"""Group norm in float32 on the CPU, for networks that compute in a low precision.

PyTorch's own takes ten times as long in channels_last in bfloat16 as in float32 (measured: 1.5 against 0.15 ms for
[64, 64, 8, 8] on one core of Zen 5); to and from float32 costs less than that, and sums more exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Float32GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, the same parameters by the same names; anything but a low precision on the CPU takes its way."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype == torch.float32:
            return super().forward(x)
        weight, bias = (None if value is None else value.float() for value in (self.weight, self.bias))
        return F.group_norm(x.float(), self.num_groups, weight, bias, self.eps).to(x.dtype)


def use_float32_norms(network: nn.Module) -> nn.Module:
    """Every group norm in `network` computes so from now on."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = Float32GroupNorm
    return network
