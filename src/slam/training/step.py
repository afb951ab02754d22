"""The training step: Algorithm 1, on one rank's share of the global batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from slam.core.draw import Draw
from slam.core.schedule import Schedule
from slam.core.slad import slad_loss
from slam.models.ema import ema_update


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


class Batch(NamedTuple):
    latents: Tensor  # [B, C, h, w], scaled
    input_ids: Tensor  # [B, L]
    draw: Draw

    def to(self, device: torch.device | str) -> Batch:
        return Batch(self.latents.to(device), self.input_ids.to(device), self.draw.to(device))


def train_step(
    objective: Objective,
    accelerator: Accelerator,
    student: nn.Module,
    target: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: list[Batch],
) -> Tensor:
    """One optimizer step on `micro_batches`; returns (loss, gradient norm, skipped) float32 [3], this rank's loss.

    A step whose gradient is not finite is skipped: it leaves weights, moments and target as they are. Nothing here
    waits for the device.
    """
    count = sum(len(batch.latents) for batch in micro_batches)
    total = torch.zeros((), device=accelerator.device)
    for i, batch in enumerate(micro_batches):
        with torch.no_grad():
            c = objective.embed(batch.input_ids)
        last = i == len(micro_batches) - 1
        with accelerator.autocast(), nullcontext() if last else accelerator.no_sync(student):
            loss = slad_loss(
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
            share = loss.sum() / count
            accelerator.backward(share)
        total += share.detach()
    norm = accelerator.clip_grad_norm_(student.parameters(), objective.clip)
    norm = norm.detach().float()
    skipped = (~torch.isfinite(norm)).float()  # the same on every rank, as the gradient is
    getattr(optimizer, "optimizer", optimizer).found_inf = skipped  # where it is 1, the fused AdamW does nothing
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    ema_update(target, accelerator.unwrap_model(student), (1 - objective.mu) * (1 - skipped))
    return torch.stack([total, norm, skipped])
