"""From the plan to Algorithm 1's constants and its three networks."""

from __future__ import annotations

from functools import partial

import torch

from slam.core.methods import CONDITIONINGS, DISTANCES, METHODS
from slam.errors import SlamError
from slam.models.diffusion import LatentDiffusion
from slam.models.predictor import NoisePredictor, check_prediction, schedule_of
from slam.models.student import make_student
from slam.training.plan import Plan
from slam.training.step import Objective


def make_objective(plan: Plan, model: LatentDiffusion) -> tuple[Objective, NoisePredictor]:
    """The constants of the plan's method, and the student's network, equal to the teacher `model`.

    Raises `SlamError` for a teacher whose prediction or schedule does not suit the plan.
    """
    distill, prediction = plan.distill, model.scheduler.config.prediction_type
    method = METHODS[distill.method]
    # Without a gamma there is nothing to tell the network: LCM's student needs no further input.
    conditioning = distill.conditioning if method.gamma_law(torch.Generator(), 1) is not None else "time-matched"
    check_prediction(prediction, plan.teacher, conditioning)
    schedule = schedule_of(model.scheduler, plan.teacher).to(model.unet.device)
    if distill.k > schedule.T:
        raise SlamError(f"distill.k = {distill.k} must be at most the number of times of {plan.teacher}, {schedule.T}")
    distance = DISTANCES[distill.distance]
    with torch.no_grad():
        null = model.embed([""])
    objective = Objective(
        teacher=NoisePredictor(model.unet, prediction, schedule),
        embed=model.embed_tokens,
        null=null,
        path=method.paths[distill.sigma],
        condition=CONDITIONINGS[conditioning],
        distance=partial(distance, c=distill.huber_c) if distill.distance == "huber" else distance,
        schedule=schedule,
        mu=distill.mu,
        clip=plan.train.clip,
    )
    return objective, NoisePredictor(make_student(model.unet, conditioning), prediction, schedule)
