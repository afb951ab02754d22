"""The boundary condition F(z, t = 0) = z and the student's prediction of z_0."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from slam.core.paths import PathPoint

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0  # both as diffusers' LCMScheduler has them, so that stock sampling agrees with training


def c_skip(t: Tensor) -> Tensor:
    """[B, 1, 1, 1] for times t [B]."""
    return SIGMA_DATA**2 / ((t.view(-1, 1, 1, 1) * TIMESTEP_SCALING) ** 2 + SIGMA_DATA**2)  # Eq 5


def c_out(t: Tensor) -> Tensor:
    """[B, 1, 1, 1] for times t [B]."""
    scaled = t.view(-1, 1, 1, 1) * TIMESTEP_SCALING
    return scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5  # Eq 5


def predict_z0(
    net: Callable, point: PathPoint, t: Tensor, c: Tensor | None, gamma: Tensor | None, w: Tensor | None = None
) -> Tensor:
    """F_theta(z_gamma, c, gamma, t) [B, C, h, w]; a network that is told the guidance scale w [B] reads it too."""
    eps = net(point.z, t, c, gamma=gamma, w=w)
    f = (point.z - point.sigma * eps) / point.alpha  # Eq 14
    return c_skip(t) * point.z + c_out(t) * f  # Eq 16
