"""Everything that a run resumes from, beside the number of its step.

Randomness and data order are functions of (seed, step), and every rank holds the same numbers: no rank has a part of
its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from slam.config import Train
from slam.models.student import trained
from slam.training.adamw import LeanAdamW
from slam.training.scaler import LossScale, first_scale

Weights = dict[str, Tensor]  # the parameters that are trained, by diffusers' names


class State(NamedTuple):
    """The tensors themselves, which a step changes in place."""

    student: Weights
    target: Weights  # theta^-
    averages: dict[float, Weights]  # by EMA decay, float32
    optimizer: torch.optim.Optimizer
    scaler: LossScale | None  # of fp16


def first_state(config: Train, student: nn.Module, target: nn.Module) -> State:
    """Of two equal U-Nets before the first step: every average is the student's own weights."""
    own, all_of_target = trained(student), dict(target.named_parameters())
    return State(
        own,
        {name: all_of_target[name] for name in own},
        {decay: {name: value.detach().float().clone() for name, value in own.items()} for decay in config.emas},
        make_optimizer(config, list(own.values())),
        first_scale(next(iter(own.values())).device) if config.precision == "fp16" else None,
    )


def make_optimizer(config: Train, parameters: list[Tensor]) -> torch.optim.AdamW:
    fused, decay = config.speed.fused, config.weight_decay
    if fused and parameters[0].device.type == "cpu":
        return LeanAdamW(parameters, config.lr, decay)
    return torch.optim.AdamW(parameters, config.lr, weight_decay=decay, fused=fused)


@torch.no_grad()
def ema_gap(state: State) -> Tensor:
    """||theta - theta^-|| / ||theta^-||, float32 []: how far the target lags behind what is trained."""
    pairs = list(zip(state.student.values(), state.target.values(), strict=True))
    apart = torch.stack([(student - target).norm() for student, target in pairs]).norm()
    return apart / torch.stack([target.norm() for _, target in pairs]).norm()
