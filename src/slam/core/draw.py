"""All randomness of one training step, as one value that is a function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    ladder: list[Tensor]  # k / k_phi + 1 tensors int64 [B]: t, t - k_phi, …, s = t - k; or t and s alone
    gamma: Tensor | None  # [B] in [0, 1); None means 1
    w: Tensor  # [B] guidance of Eq 18; 1 is none
    noise: Tensor  # [B, C, h, w]

    def rows(self, part: slice) -> Draw:
        """The same draw for some samples of the batch: a rank's share, a micro-batch."""
        gamma = None if self.gamma is None else self.gamma[part]
        return Draw([t[part] for t in self.ladder], gamma, self.w[part], self.noise[part])

    def to(self, device: torch.device | str) -> Draw:
        gamma = None if self.gamma is None else self.gamma.to(device)
        return Draw([t.to(device) for t in self.ladder], gamma, self.w.to(device), self.noise.to(device))


def stream(seed: int, step: int) -> torch.Generator:
    """A CPU generator for one step. All steps of a seed differ: torch's generator takes 32 bits of a seed, and a
    larger number, such as seed << 32 | step, would lose the seed."""
    return torch.Generator().manual_seed((seed * 2654435761 + 40503) % 2**32 ^ step)


def posterior_noise(seed: int, step: int, batch: int, shape: tuple[int, int, int]) -> Tensor:
    """[B, C, h, w], with which z_0 of this step is drawn from a posterior: mean + std * noise.

    From a stream of its own, so that the step's `Draw` is the same for data that has no posterior.
    """
    return torch.randn(batch, *shape, generator=stream(seed, step ^ 1 << 31))


def uniform_gamma(generator: torch.Generator, batch: int, at_1: float = 0.0) -> Tensor | None:
    """gamma ~ U[0, 1), Eq 17; and gamma = 1, where a student samples, in a share `at_1` of the samples (not the
    paper's)."""
    gamma = torch.rand(batch, generator=generator)
    return torch.where(torch.rand(batch, generator=generator) < at_1, 1.0, gamma)


def no_gamma(generator: torch.Generator, batch: int, at_1: float = 0.0) -> Tensor | None:
    """gamma = 1 always."""
    return None


def fixed_w(generator: torch.Generator, batch: int, w: float) -> Tensor:
    return torch.full((batch,), w)


def uniform_w(generator: torch.Generator, batch: int, w_min: float, w_max: float) -> Tensor:
    """w ~ U[w_min, w_max), for a student that is told w (LCM, Luo et al. 2023, Algorithm 1)."""
    return torch.empty(batch).uniform_(w_min, w_max, generator=generator)


def solver_grid(T: int, k_phi: int) -> Tensor:
    """The times t at which a sub-path may start: multiples of k_phi, less one.

    For T = 1000 and k_phi = 20 these are the 50 times that diffusers' LCMScheduler draws its inference steps from.
    Algorithm 1 has t ~ U[k, T]; then no sub-path starts at 19 … k - 21, and what ends there is pulled to a target that
    nothing trains. Here those are shorter: s = t - k, clamped at 0.
    """
    return torch.arange(k_phi - 1, T, k_phi)


def make_draw(
    seed: int,
    step: int,
    batch: int,
    shape: tuple[int, int, int],
    *,
    T: int,
    k: int,
    k_phi: int,
    gamma_law: Callable[[torch.Generator, int], Tensor | None],
    w_law: Callable[[torch.Generator, int], Tensor],
    multiple_estimation: bool = True,
) -> Draw:
    """The draw of a step for the *global* batch; ranks take their rows of it, so that any world size sees the same.

    Without multiple estimation the solver takes k in one step; the times are of the same grid.
    """
    generator = stream(seed, step)
    grid = solver_grid(T, k_phi)
    grid = grid[grid > 0]  # with k_phi = 1: no sub-path starts at the clean end
    t = grid[torch.randint(len(grid), (batch,), generator=generator)]
    ladder = [(t - done).clamp(min=0) for done in range(0, k + 1, k_phi if multiple_estimation else k)]
    noise = torch.randn(batch, *shape, generator=generator)
    return Draw(ladder, gamma_law(generator, batch), w_law(generator, batch), noise)
