"""The ODE solver Phi: DDIM, once or several times (multiple estimation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from slam.core.guidance import guide
from slam.core.schedule import Schedule


def ddim_step(eps: Tensor, z: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """From z at t [B] to z at s [B]: a straight line in (z / alpha, sigma / alpha) (Song et al. 2021, eta = 0)."""
    z0 = (z - schedule.sigma(t) * eps) / schedule.alpha(t)
    return schedule.alpha(s) * z0 + schedule.sigma(s) * eps


def solve(
    teacher: Callable, z: Tensor, ladder: Sequence[Tensor], c: Tensor, null: Tensor, w: Tensor, schedule: Schedule
) -> Tensor:
    """Guided DDIM from z at ladder[0] down to ladder[-1], one step a rung: Eq 18, multiple estimation.

    `c` [B, L, D] is the prompt, `null` [1 or B, L, D] the empty one, `w` [B]. Guiding eps is guiding the step, since
    the step is affine in eps. Both prompts go through the teacher in one batch.
    """
    both = torch.cat([c, null.expand_as(c)])
    for t, s in pairwise(ladder):
        eps_c, eps_u = teacher(torch.cat([z, z]), torch.cat([t, t]), both).to(z.dtype).chunk(2)
        z = ddim_step(guide(eps_c, eps_u, w), z, t, s, schedule)  # Eq 18
    return z
