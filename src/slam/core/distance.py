"""Distances |x - y| per sample: [B, C, h, w] twice to [B], the mean over elements."""

from __future__ import annotations

from torch import Tensor

HUBER_C = 0.001  # as LCM's code has it


def l2(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).mean(1)


def huber(x: Tensor, y: Tensor, c: float = HUBER_C) -> Tensor:
    """Pseudo-Huber (Song & Dhariwal 2024), per element."""
    return (((x - y).square() + c**2).sqrt() - c).flatten(1).mean(1)
