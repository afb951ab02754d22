"""The noise schedule: z_t = alpha(t) z_0 + sigma(t) eps, variance preserving."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Schedule(NamedTuple):
    """alpha and sigma for the indices 0 … T - 1, float32; make it with `make_schedule`."""

    alphas: Tensor  # [T]
    sigmas: Tensor  # [T]

    @property
    def T(self) -> int:  # noqa: N802
        return len(self.alphas)

    def alpha(self, t: Tensor) -> Tensor:
        """alpha(t) [B, 1, 1, 1] for indices t [B]."""
        return self.alphas[t].view(-1, 1, 1, 1)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t) [B, 1, 1, 1] for indices t [B]."""
        return self.sigmas[t].view(-1, 1, 1, 1)

    def time(self, r: Tensor) -> Tensor:
        """The fractional time tau with sigma(tau) / alpha(tau) = r, by linear interpolation of log r. Any shape."""
        grid, x = (self.sigmas / self.alphas).log(), r.log()
        right = torch.searchsorted(grid, x.contiguous()).clamp(1, self.T - 1)
        left = right - 1
        return (left + (x - grid[left]) / (grid[right] - grid[left])).clamp(0, self.T - 1)

    def circle(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), each [B, 1, 1, 1], at fractional times tau [B]: the inverse of `time`."""
        grid = (self.sigmas / self.alphas).log()
        left = tau.floor().long().clamp(0, self.T - 2)
        r = torch.lerp(grid[left], grid[left + 1], (tau - left).to(grid.dtype)).exp().view(-1, 1, 1, 1)
        alpha = (1 + r * r).rsqrt()
        return alpha, r * alpha

    def to(self, device: torch.device | str) -> Schedule:
        return Schedule(self.alphas.to(device), self.sigmas.to(device))


def make_schedule(alphas_cumprod: Tensor) -> Schedule:
    """From diffusers' `alphas_cumprod` [T]. Raises ValueError unless it falls strictly from below 1 to above 0."""
    a = alphas_cumprod.double().cpu()
    if not (a.ndim == 1 and len(a) > 1 and a[-1] > 0 and a[0] < 1 and bool((a.diff() < 0).all())):
        raise ValueError(
            "alphas_cumprod must fall strictly, inside (0, 1); "
            f"found {len(a)} values from {a[0]:.4g} to {a[-1]:.4g}. At zero terminal SNR z_0 cannot be told from eps"
        )
    schedule = Schedule(a.sqrt().float(), (1 - a).sqrt().float())
    if not bool(((schedule.sigmas / schedule.alphas).diff() > 0).all()):
        raise ValueError("alphas_cumprod falls by less than float32 can tell between two neighbouring times")
    return schedule
