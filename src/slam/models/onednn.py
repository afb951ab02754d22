"""Linear layers by oneDNN in float32 on the CPU.

PyTorch sends a float32 matrix product to MKL, which on AMD's cores uses half the width of AVX-512 (measured on Zen 5:
113 GFLOP/s a core against 270 by oneDNN, which makes the convolutions). Same product, other order of summation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneDnnLinear(nn.Linear):
    """`nn.Linear`, the same parameters by the same names; anything but float32 on the CPU takes its usual way."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return _Product.apply(x, self.weight, self.bias) if plain else super().forward(x)


class _Product(torch.autograd.Function):
    """x W^T + b for x [..., I], W [O, I], b [O] or None."""

    @staticmethod
    def forward(context, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(x, weight)
        context.biased = bias is not None
        return product(x, weight, bias)

    @staticmethod
    def backward(context, gradient: Tensor):
        x, weight = context.saved_tensors
        needs_x, needs_weight, needs_bias = context.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        by_x = product(gradient, weight.t(), None) if needs_x else None
        by_weight = _outer(rows, x.reshape(-1, x.shape[-1])) if needs_weight else None
        return by_x, by_weight, rows.sum(0) if context.biased and needs_bias else None


def _outer(y: Tensor, x: Tensor) -> Tensor:
    """y^T x, [O, I], for y [N, O] and x [N, I]. oneDNN is given its first factor in contiguous memory: the narrower of
    the two is turned, which is cheap; turning [512, 1024] took longer than the product."""
    narrow = y.shape[1] <= x.shape[1]
    return product(y.t(), x.t(), None) if narrow else product(x.t(), y.t(), None).t()


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b; any strides."""
    made = _opaque if torch.compiler.is_compiling() else _product
    return made(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


# Inductor's own lowering of the product takes constant weights alone.
_opaque = torch.library.custom_op("slam::product", _product, mutates_args=())
_opaque.register_fake(lambda x, weight, bias: x.new_empty(*x.shape[:-1], weight.shape[0]))


def use_onednn(network: nn.Module) -> nn.Module:
    """Every plain `nn.Linear` in `network` computes by oneDNN from now on, where this PyTorch has it."""
    if torch.backends.mkldnn.is_available():
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear
    return network
