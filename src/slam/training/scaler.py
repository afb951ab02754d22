"""The dynamic loss scale of fp16, whose gradients would otherwise be too small for it.

The law and the numbers of `torch.amp.GradScaler`, with a floor, and with the overflow told from outside: here a step
is skipped when the gradient's norm is not finite, whatever the precision. Nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

FIRST, FLOOR, CEILING = 2.0**16, 1.0, 2.0**24
PATIENCE = 2000  # steps without an overflow, after which the scale doubles


class LossScale(NamedTuple):
    scale: Tensor  # float32 [], a power of two, so that scaling rounds nothing
    clean: Tensor  # int32 [], steps since the scale last changed


def first_scale(device: torch.device | str) -> LossScale:
    return LossScale(torch.tensor(FIRST, device=device), torch.zeros((), dtype=torch.int32, device=device))


@torch.no_grad()
def unscale(parameters: Iterable[Tensor], scaler: LossScale) -> None:
    """Divide the gradients by the scale."""
    torch._foreach_mul_([value.grad for value in parameters if value.grad is not None], 1 / scaler.scale)


@torch.no_grad()
def update(scaler: LossScale, skipped: Tensor) -> None:
    """Halve the scale where `skipped`, 0 or 1, is 1; double it after PATIENCE steps in a row where it was 0."""
    overflow = skipped.bool()
    clean = torch.where(overflow, 0, scaler.clean + 1)
    grown = clean == PATIENCE
    scale = torch.where(overflow, scaler.scale / 2, torch.where(grown, scaler.scale * 2, scaler.scale))
    scaler.scale.copy_(scale.clamp(FLOOR, CEILING))
    scaler.clean.copy_(torch.where(grown, 0, clean))
