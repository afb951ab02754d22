"""Inference: the multistep consistency sampler, at gamma = 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slam.core.boundary import predict_z0
from slam.core.draw import solver_grid
from slam.core.paths import PathPoint
from slam.core.schedule import Schedule


def timesteps(steps: int, T: int = 1000, k_phi: int = 20) -> list[int]:
    """The times of a `steps`-step sampler, as diffusers' LCMScheduler picks them: 4 gives 999, 759, 499, 259."""
    grid = solver_grid(T, k_phi).flip(0)
    if not 1 <= steps <= len(grid):
        raise ValueError(f"steps must lie in [1, {len(grid)}], found {steps}")
    return [int(grid[i * len(grid) // steps]) for i in range(steps)]


@torch.no_grad()
def sample(
    net: Callable, noise: Tensor, c: Tensor | None, steps: int, schedule: Schedule, generator: torch.Generator | None
) -> Tensor:
    """z_0 [B, C, h, w] from `noise`: denoise (Eq 19), add noise up to the next time, denoise again, …"""
    z, z0 = noise, noise
    for i, time in enumerate(timesteps(steps, schedule.T)):
        t = torch.full((len(noise),), time, device=noise.device)
        if i:
            z = schedule.alpha(t) * z0 + schedule.sigma(t) * torch.randn(noise.shape, generator=generator).to(noise)
        z0 = predict_z0(net, PathPoint(z, schedule.alpha(t), schedule.sigma(t)), t, c, None)  # Eq 19
    return z0
