"""Linear layers whose product is taken in 8-bit floating point (e4m3), for networks that are not trained.

Weights have a scale for each output, activations one for each row, so that the largest value of each is e4m3's largest
(448). On a GPU from compute capability 8.9 on the product is `torch._scaled_mm`, whose sums are bfloat16 or wider;
elsewhere the operands are rounded to e4m3 and multiplied in the layer's own type: the same rounding, not the speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
MULTIPLE = 16  # `_scaled_mm` takes inner and outer sizes that are multiples of it


def scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """e4m3 [N, K] and the float32 scale [N, 1] of each row, for x [N, K]: their product is x, rounded."""
    scale = x.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / LARGEST
    return (x / scale).to(E4M3), scale


class Fp8Linear(nn.Module):
    """In place of an `nn.Linear`, without a gradient."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        values, scale = scaled(linear.weight.detach())
        self.register_buffer("weight", values)  # [O, I]
        self.register_buffer("scale", scale)  # [O, 1]
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        values, scale = scaled(rows)
        if native(x.device):
            # the bias of a scaled product has to be of the output's type
            bias = None if self.bias is None else self.bias.to(torch.bfloat16)
            out = torch._scaled_mm(
                values, self.weight.t(), scale, self.scale.t(), bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True
            ).to(x.dtype)
        else:
            weight = (self.weight.float() * self.scale).to(x.dtype)
            out = nn.functional.linear((values.float() * scale).to(x.dtype), weight, self.bias)
        return out.view(*x.shape[:-1], -1)


def native(device: torch.device) -> bool:
    """Whether the device multiplies e4m3."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def use_fp8(network: nn.Module) -> nn.Module:
    """`network` with its linear layers in fp8, in place; those of sizes that the product does not take stay."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and not (module.in_features % MULTIPLE or module.out_features % MULTIPLE):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, Fp8Linear(module))
    return network
