"""Distances |x - y| per sample: [B, C, h, w] twice to [B]."""

from __future__ import annotations

from torch import Tensor

HUBER_C = 0.001  # as LCM's code has it


def l2(x: Tensor, y: Tensor) -> Tensor:
    """The mean square over elements."""
    return (x - y).square().flatten(1).mean(1)


def huber(x: Tensor, y: Tensor, c: float = HUBER_C) -> Tensor:
    """Pseudo-Huber of each element, the mean over them: the form of LCM's code."""
    return (((x - y).square() + c**2).sqrt() - c).flatten(1).mean(1)


def huber_vector(x: Tensor, y: Tensor, c: float = HUBER_C) -> Tensor:
    """Pseudo-Huber of the whole difference, sqrt(|x - y|^2 + c^2) - c (Song & Dhariwal 2024, Eq 7)."""
    return ((x - y).square().flatten(1).sum(1) + c**2).sqrt() - c
