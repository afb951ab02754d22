"""What each switch of `train.speed` gives: two trainings that differ in it alone, step by step in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from slam.bench.subject import Subject
from slam.bench.turns import Worker, in_turn, training
from slam.core.solver import solve
from slam.models.diffusion import LatentDiffusion
from slam.training.batches import global_draw
from slam.training.objective import make_objective
from slam.training.plan import Plan

# What it is, the change, and whether the change is on: a default that is on is measured by taking it away.
SWITCHES = {
    "teacher's two passes in one batch": {"one_batch": False},
    "channels_last": {"channels_last": False},
    "fused attention": {"attention": "math"},
    "fused AdamW, clipping and averages": {"fused": False},
    "linear layers by oneDNN": {"onednn": False},
    "freed memory kept": {"keep_memory": False},
    "contexts of captions made before": {"text_cache": 0},
    "teacher and target in bf16": {"frozen": "bf16"},
    "teacher in fp8, target in bf16": {"frozen": "fp8"},
    "torch.compile": {"compile": True},
    "CUDA graph of the step": {"graphs": True},
}
ELSEWHERE = {  # where a switch has nothing to do
    "cpu": {"graphs": "needs CUDA"},
    "cuda": {"onednn": "CPU alone", "keep_memory": "CPU alone"},
}
ROUNDS = 5


class Gain(NamedTuple):
    name: str
    default: bool  # whether it is on by default
    ratio: float | None  # samples/s with it, of those without it: the median of ROUNDS
    spread: tuple[float, float] | None
    own: float | None = None  # the same by processor time
    note: str = ""


def gains(subject: Subject, device: torch.device, steps: int, slow: bool) -> Iterator[Gain]:
    """One at a time: two trainings are in memory. `slow` has those whose first step takes minutes too."""
    with Worker(training, subject) as default:
        for name, change in SWITCHES.items():
            key, other = next(iter(change.items()))
            mine = getattr(subject.plan.train.speed, key)
            on = (other in (False, 0, "math")) != (mine == other)
            if reason := ELSEWHERE.get(device.type, {}).get(key):
                yield Gain(name, on, None, None, note=reason)
            elif key == "compile" and not slow:
                yield Gain(name, on, None, None, note="asked for with --slow: its first step takes minutes")
            elif mine == other:
                yield Gain(name, on, None, None, note="so in this profile")
            else:
                with Worker(training, subject.with_speed(**change)) as changed:
                    turns = [turn if on else turn[::-1] for turn in in_turn([default, changed], ROUNDS, steps)]
                wall, own = ([without[i] / using[i] for using, without in turns] for i in (0, 1))
                yield Gain(name, on, statistics.median(wall), (min(wall), max(wall)), statistics.median(own))


def effect(subject: Subject, device: torch.device, frozen: str) -> float:
    """How far the teacher in low precision moves the end of the sub-path: |z_s' - z_s| / |z_t - z_s|, over a batch."""
    ends = []
    for chosen in ("precision", frozen):
        plan = subject.with_speed(frozen=chosen).plan
        model = subject.model(device)
        ends.append(_end(plan, model))
    (z_t, z_s), (_, low) = ends
    return float((low - z_s).norm() / (z_t - z_s).norm())


def _end(plan: Plan, model: LatentDiffusion) -> tuple[Tensor, Tensor]:
    objective, _ = make_objective(plan, model)
    schedule, device = objective.schedule, objective.null.device
    draw = global_draw(plan, model.latent_shape, schedule.T, 0).to(device)
    t = draw.ladder[0]
    z_0 = torch.randn(draw.noise.shape, generator=torch.Generator().manual_seed(0)).to(device)
    z_t = schedule.alpha(t) * z_0 + schedule.sigma(t) * draw.noise
    with torch.no_grad():
        c = objective.embed(torch.zeros(len(t), objective.null.shape[1], dtype=torch.int64, device=device))
        return z_t, solve(objective.teacher, z_t, draw.ladder, c, objective.null, draw.w, schedule)
