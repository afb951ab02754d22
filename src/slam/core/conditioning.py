"""How a network learns where on the path a point lies: `condition(point, t, gamma, schedule) -> Query`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from slam.core.paths import PathPoint
from slam.core.schedule import Schedule


class Query(NamedTuple):
    """What the network is asked."""

    point: PathPoint
    t: Tensor  # [B], an index or a fractional time
    gamma: Tensor | None  # [B], or None for gamma = 1


def by_embedding(point: PathPoint, t: Tensor, gamma: Tensor | None, schedule: Schedule) -> Query:
    """The paper's form: the point as it is, its t, and gamma as a further input."""
    return Query(point, t, gamma)


def time_matched(point: PathPoint, t: Tensor, gamma: Tensor | None, schedule: Schedule) -> Query:
    """No further input: the point scaled to unit variance, and the time tau of its signal-to-noise ratio.

    In u = z / alpha, r = sigma / alpha a DDIM step is the line u(s) = u(t) + (r(s) - r(t)) eps. The SL point (Eq 12)
    and the linear sigma, divided by alpha_t, are that same line at r = (1 - gamma) r_s + gamma r_t: on one DDIM step
    the SL point *is* the teacher's own point at tau. A noise predictor is therefore right for every gamma before any
    training, and needs no parameter that export would have to drop. At gamma = 1 it is the plain query, bit for bit.
    """
    if gamma is None:
        return Query(point, t, None)
    at_end = gamma == 1
    tau = torch.where(at_end, t.to(point.z.dtype), schedule.time((point.sigma / point.alpha).flatten()))
    scale = torch.where(at_end.view(-1, 1, 1, 1), 1.0, (point.alpha**2 + point.sigma**2).rsqrt())
    return Query(PathPoint(*(part * scale for part in point)), tau, None)
