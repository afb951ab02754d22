"""Algorithm 1: Sub-path Linear Approximation Distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slam.core.boundary import predict_z0
from slam.core.conditioning import by_embedding
from slam.core.draw import Draw
from slam.core.paths import endpoint
from slam.core.schedule import Schedule
from slam.core.solver import solve
from slam.core.weighting import uniform


def slad_loss(
    student: Callable,
    target: Callable,
    teacher: Callable,
    z0: Tensor,
    c: Tensor,
    null: Tensor,
    draw: Draw,
    path: Callable,
    schedule: Schedule,
    distance: Callable[[Tensor, Tensor], Tensor],
    condition: Callable = by_embedding,
    weight: Callable = uniform,
) -> Tensor:
    """The loss of each sample, [B], for clean latents z0 [B, C, h, w], prompts c and the empty prompt `null`.

    Eq 17. LCM is the path `endpoint`; multiple estimation is a draw whose ladder has more than two rungs. Student and
    target are told w; those with a fixed one ignore it.
    """
    t, s = draw.ladder[0], draw.ladder[-1]
    z_t = schedule.alpha(t) * z0 + schedule.sigma(t) * draw.noise
    with torch.no_grad():
        z_s = solve(teacher, z_t, draw.ladder, c, null, draw.w, schedule)  # Eq 18
        goal = predict_z0(
            target, endpoint(z_s, z_s, s, s, None, schedule), s, c, None, draw.w
        )  # F_{theta^-}(z_s, c, 1, s)
    point = path(z_s, z_t, s, t, draw.gamma, schedule)  # Eq 12
    query = condition(point, t, draw.gamma, schedule)
    prediction = predict_z0(student, query.point, query.t, c, query.gamma, draw.w)
    return weight(t, s, schedule) * distance(prediction, goal)  # Eq 17
