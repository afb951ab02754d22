"""What a student is told besides (z, t, c): gamma, or the guidance scale w, as features [B, FEATURES].

They enter by diffusers' slot `time_cond_proj_dim`: a linear map without a bias, added to the embedding of t.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from slam.core.methods import METHODS

FEATURES = 256
PROJECTION = "time_embedding.cond_proj.weight"  # the slot's only parameter


def sinusoids(x: Tensor, count: int = FEATURES) -> Tensor:
    """[sin, cos] of 1000 x [B] at count / 2 frequencies from 1 to 1e-4, as diffusers' LCM pipelines embed w."""
    half = count // 2
    frequencies = torch.exp(torch.arange(half, device=x.device) * (-math.log(10000.0) / (half - 1)))
    angle = 1000.0 * x[:, None].float() * frequencies
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def gamma_features(gamma: Tensor) -> Tensor:
    """The paper's embedding: sinusoids of gamma, set to 0 where gamma = 1 (below Eq 19), and nowhere near it."""
    return torch.where((gamma == 1)[:, None], 0.0, sinusoids(gamma))


def continuous_gamma_features(gamma: Tensor) -> Tensor:
    """fourier(1 - gamma) - fourier(0): exactly zero at gamma = 1, and continuous there, so that a network near
    gamma = 1 is near the network at gamma = 1. Frequencies of 0.5 to 16 radians, evenly in the logarithm.
    """
    frequencies = torch.logspace(-1, 4, FEATURES // 2, base=2, device=gamma.device)
    angle = (1 - gamma)[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos() - 1], dim=1)


def guidance_features(w: Tensor) -> Tensor:
    """Of w - 1, as diffusers' pipelines tell it (LCM writes w' = w - 1)."""
    return sinusoids(w - 1)


def of_gamma(features: Callable) -> Callable:
    return lambda gamma, w: None if gamma is None else features(gamma)


# `embed(gamma, w) -> [B, FEATURES]`, or None for no embedding
EMBEDDINGS: dict[str, Callable] = {
    "none": lambda gamma, w: None,
    "gamma": of_gamma(gamma_features),
    "gamma-continuous": of_gamma(continuous_gamma_features),
    "w": lambda gamma, w: guidance_features(w),
}


def embedding_of(method: str, conditioning: str) -> str:
    """The key of EMBEDDINGS that a student of this method and conditioning has."""
    if method == "lcm_w":
        return "w"
    # Where gamma is always 1 there is nothing to tell; time-matched tells it by the time.
    has_gamma = METHODS[method].gamma_law(torch.Generator(), 1) is not None
    return conditioning if has_gamma and conditioning in EMBEDDINGS else "none"
