"""How far the target is from the teacher on held-out latents, the same samples, times and noise for every checkpoint.

Algorithm 1's own loss does not rank checkpoints: both of its sides move, and on the tiny profile it rose while the
pictures became better. This one's goal is fixed: where the teacher's path from z_t ends.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from slam.core.boundary import predict_z0
from slam.core.paths import endpoint
from slam.core.solver import solve
from slam.data.latents import Latents
from slam.models.predictor import NoisePredictor
from slam.training.batches import global_draw, local_batches
from slam.training.plan import Plan
from slam.training.step import Objective

SAMPLES = 64  # at most
MICRO_BATCH = 16
STEP = 2**30  # whose draw it is: no training comes so far


class Question(NamedTuple):
    """For a few samples: the noised latents, what is told with them, and the answer."""

    z_t: Tensor
    t: Tensor
    c: Tensor
    w: Tensor
    goal: Tensor


@torch.no_grad()
def held_out_questions(
    plan: Plan, objective: Objective, held_out: Latents, shape: tuple[int, int, int]
) -> list[Question]:
    """The goals cost two passes of the teacher a sample for each of the solver's steps from t to 0, once a run."""
    count = min(len(held_out), SAMPLES)
    plan = plan._replace(train=plan.train.model_copy(update={"batch": count, "micro_batch": MICRO_BATCH}))
    schedule, device = objective.schedule, objective.null.device
    draw = global_draw(plan, shape, schedule.T, STEP)
    questions = []
    for batch in local_batches(plan, held_out, draw, STEP, 0, 1):
        latents, ids, draw = batch.to(device)
        t, c = draw.ladder[0], objective.embed(ids)
        z_t = schedule.alpha(t) * latents + schedule.sigma(t) * draw.noise
        down = range(0, int(t.max()) + plan.distill.k_phi, plan.distill.k_phi)
        with objective.autocast():
            ladder = [(t - done).clamp(min=0) for done in down]
            goal = solve(objective.teacher, z_t, ladder, c, objective.null, draw.w, schedule)
        questions.append(Question(z_t, t, c, draw.w, goal))
    return questions


@torch.no_grad()
def held_out_loss(objective: Objective, target: NoisePredictor, questions: list[Question]) -> float:
    """Mean square of F_{theta^-}(z_t, c, 1, t) less its goal: one pass of the target a sample.

    Doubtful as a judge of pictures, as every such distance is: it prefers the blurred. `select` looks at pictures.
    """
    found = []
    for z_t, t, c, w, goal in questions:
        with objective.autocast():
            predicted = predict_z0(target, endpoint(z_t, z_t, t, t, None, objective.schedule), t, c, None, w)
        found.append((predicted - goal).float().square().flatten(1).mean(1))
    return torch.cat(found).mean().item()
