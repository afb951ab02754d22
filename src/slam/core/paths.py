"""Points between z_s and z_t: the paths on which the student is trained.

Each path is `path(z_s, z_t, s, t, gamma, schedule) -> PathPoint`; gamma [B] in [0, 1], 1 is the noisy end z_t.
A sigma is `sigma(s, t, gamma, schedule) -> [B, 1, 1, 1]`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from slam.core.schedule import Schedule


class PathPoint(NamedTuple):
    """A point and its marginal: z ~ N(alpha z_0, sigma^2 I)."""

    z: Tensor  # [B, C, h, w]
    alpha: Tensor  # [B, 1, 1, 1]
    sigma: Tensor  # [B, 1, 1, 1]


def endpoint(z_s: Tensor, z_t: Tensor, s: Tensor, t: Tensor, gamma: Tensor | None, schedule: Schedule) -> PathPoint:
    """z_t itself, whatever gamma: a consistency model's path (LCM)."""
    return PathPoint(z_t, schedule.alpha(t), schedule.sigma(t))


def sigma_linear(s: Tensor, t: Tensor, gamma: Tensor, schedule: Schedule) -> Tensor:
    """sigma'(gamma, t), the main text's form; exact on a DDIM step."""
    ratio, gamma = schedule.alpha(t) / schedule.alpha(s), gamma.view(-1, 1, 1, 1)
    return (1 - gamma) * ratio * schedule.sigma(s) + gamma * schedule.sigma(t)  # Sec 4.2; App B ends in sigma(t)


def sigma_exact(s: Tensor, t: Tensor, gamma: Tensor, schedule: Schedule) -> Tensor:
    """sigma(gamma, t), exact if z_t was made from z_s by independent noise."""
    ratio, gamma = schedule.alpha(t) / schedule.alpha(s), gamma.view(-1, 1, 1, 1)
    return (ratio**2 * schedule.sigma(s) ** 2 + gamma**2 * (1 - ratio**2)).sqrt()  # Eq 24


def sub_path_linear(
    z_s: Tensor, z_t: Tensor, s: Tensor, t: Tensor, gamma: Tensor | None, schedule: Schedule, sigma=sigma_linear
) -> PathPoint:
    """The SL-ODE's point: z_s rescaled to alpha_t, then a straight line to z_t."""
    if gamma is None:
        return endpoint(z_s, z_t, s, t, gamma, schedule)
    g = gamma.view(-1, 1, 1, 1)
    z = (1 - g) * schedule.alpha(t) / schedule.alpha(s) * z_s + g * z_t  # Eq 12
    return PathPoint(z, schedule.alpha(t), sigma(s, t, gamma, schedule))


def sub_path_exact(
    z_s: Tensor, z_t: Tensor, s: Tensor, t: Tensor, gamma: Tensor | None, schedule: Schedule
) -> PathPoint:
    """`sub_path_linear` with the sigma of Eq 24."""
    return sub_path_linear(z_s, z_t, s, t, gamma, schedule, sigma_exact)


def direct_linking(
    z_s: Tensor, z_t: Tensor, s: Tensor, t: Tensor, gamma: Tensor | None, schedule: Schedule
) -> PathPoint:
    """DL, the paper's ablation: a straight line from z_s to z_t without the rescaling."""
    if gamma is None:
        return endpoint(z_s, z_t, s, t, gamma, schedule)
    g, ratio = gamma.view(-1, 1, 1, 1), schedule.alpha(t) / schedule.alpha(s)
    z = z_s + g * (z_t - z_s)  # Eq 26
    alpha = g * schedule.alpha(t) + (1 - g) * schedule.alpha(s)
    variance = (1 - g + g * ratio) ** 2 * schedule.sigma(s) ** 2 + g**2 * (1 - ratio**2)  # Eq 28
    return PathPoint(z, alpha, variance.sqrt())
