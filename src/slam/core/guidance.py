"""Classifier-free guidance (Ho & Salimans), in Stable Diffusion's convention: w = 1 is no guidance."""

from __future__ import annotations

from torch import Tensor


def guide(eps_c: Tensor, eps_u: Tensor, w: Tensor) -> Tensor:
    """eps_u + w (eps_c - eps_u) for eps [B, C, h, w] and w [B]. The only place where w is multiplied."""
    return eps_u + w.view(-1, 1, 1, 1) * (eps_c - eps_u)  # Eq 18
