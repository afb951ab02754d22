"""The training step: Algorithm 1, on one rank's share of the global batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from slam.core.draw import Draw
from slam.core.schedule import Schedule
from slam.core.slad import slad_loss
from slam.models.ema import ema_update
from slam.training.scaler import unscale, update
from slam.training.state import State


class Objective(NamedTuple):
    """What stays the same for the whole run."""

    teacher: nn.Module
    embed: Callable[[Tensor], Tensor]  # token ids [B, L] to context [B, L, D]
    null: Tensor  # [1, L, D], the empty caption's context
    path: Callable
    condition: Callable
    distance: Callable
    weight: Callable
    schedule: Schedule
    mu: float  # EMA decay of the target
    clip: float  # L2 norm
    autocast: Callable  # () to the context of the three networks' precision
    fused: bool = True  # train.speed.fused


class Batch(NamedTuple):
    latents: Tensor  # [B, C, h, w], scaled
    text: Tensor  # token ids [B, L], or the context [B, L, D] that was made of them before
    draw: Draw

    def to(self, device: torch.device | str) -> Batch:
        """From pinned memory a copy waits for nothing."""
        return tree_map_only(Tensor, lambda value: value.to(device, non_blocking=True), self)

    def pinned(self) -> Batch:
        return tree_map_only(Tensor, Tensor.pin_memory, self)


def losses(objective: Objective, student: nn.Module, target: nn.Module, batch: Batch) -> Tensor:
    """Algorithm 1's loss of each sample, [B]."""
    with torch.no_grad():
        c = batch.text if batch.text.is_floating_point() else objective.embed(batch.text)
    with objective.autocast():
        return slad_loss(
            student,
            target,
            objective.teacher,
            batch.latents,
            c,
            objective.null,
            batch.draw,
            objective.path,
            objective.schedule,
            objective.distance,
            objective.condition,
            objective.weight,
        )


def train_step(
    objective: Objective,
    accelerator: Accelerator,
    student: nn.Module,
    target: nn.Module,
    state: State,
    micro_batches: list[Batch],
) -> Tensor:
    """One optimizer step on `micro_batches`; returns (loss, gradient norm, skipped, loss scale) float32 [4].

    `student` and `target` are the noise predictors of the weights in `state`. The loss is this rank's; the scale is
    the one that this step had, 1 but for fp16. A step whose loss or gradient is not finite is skipped: it leaves
    weights, moments and averages as they are. Nothing here waits for the device, unless
    `objective.fused` is off.
    """
    scaler = state.scaler
    scale = scaler.scale.clone() if scaler else torch.ones((), device=accelerator.device)
    count = sum(len(batch.latents) for batch in micro_batches)
    total = torch.zeros((), device=accelerator.device)
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(student):
            share = losses(objective, student, target, batch).sum() / count
            # A loss that is not finite makes the gradient so, on every rank
            accelerator.backward(share * torch.where(share.isfinite(), scale, torch.nan))
        total += share.detach()
    if scaler:
        unscale(student.parameters(), scaler)
    norm = nn.utils.clip_grad_norm_(student.parameters(), objective.clip, foreach=objective.fused)
    norm = norm.detach().float()
    skipped = (~torch.isfinite(norm)).float()  # the same on every rank, as the gradient is
    if objective.fused:
        state.optimizer.found_inf = skipped  # where it is 1, the fused AdamW does nothing
    if objective.fused or not skipped:
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    for decay, average in [(objective.mu, state.target), *state.averages.items()]:
        ema_update(average.values(), state.student.values(), (1 - decay) * (1 - skipped), objective.fused)
    if scaler:
        update(scaler, skipped)
    return torch.stack([total, norm, skipped, scale])
