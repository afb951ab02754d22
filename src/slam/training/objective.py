"""From the plan to Algorithm 1's constants and its three networks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from slam.core.methods import CONDITIONINGS, DISTANCES, METHODS, WEIGHTINGS
from slam.errors import SlamError
from slam.models.diffusion import LatentDiffusion
from slam.models.embedding import embedding_of
from slam.models.fast import quick_teacher, quicken
from slam.models.onednn import use_onednn
from slam.models.precision import PRECISIONS
from slam.models.predictor import NoisePredictor, check_prediction, marginal_of, schedule_of
from slam.models.student import make_student
from slam.training.plan import Plan
from slam.training.step import Objective


def make_objective(plan: Plan, model: LatentDiffusion) -> tuple[Objective, NoisePredictor]:
    """The constants of the plan's method, and the student's network, equal to the teacher `model`, whose U-Net is used
    up: it is now computed as `train.speed` has it.

    Raises `SlamError` for a teacher whose prediction or schedule does not suit the plan.
    """
    distill, prediction = plan.distill, model.scheduler.config.prediction_type
    method = METHODS[distill.method]
    embedding = embedding_of(distill.method, distill.conditioning)
    check_prediction(prediction, plan.teacher)
    schedule = schedule_of(model.scheduler, plan.teacher).to(model.unet.device)
    if distill.k > schedule.T:
        raise SlamError(f"distill.k = {distill.k} must be at most the number of times of {plan.teacher}, {schedule.T}")
    distance, path = DISTANCES[distill.distance], method.paths[distill.sigma]
    if plan.train.speed.onednn:
        use_onednn(model.text_encoder)
    cast = autocast(plan.train.precision, model.unet.device.type)
    embed = partial(context_of, model, cast)
    with torch.no_grad():
        null = embed(model.tokenize([""]))
    student = quicken(make_student(model.unet, embedding, plan.train.lora, plan.train.seed), plan.train.speed)
    teacher = quick_teacher(model.unet, plan.train.speed, plan.train.precision)
    objective = Objective(
        teacher=NoisePredictor(teacher, prediction, schedule),
        embed=embed,
        null=null,
        path=path,
        condition=CONDITIONINGS[distill.conditioning],
        distance=partial(distance, c=distill.huber_c) if distill.distance.startswith("huber") else distance,
        weight=WEIGHTINGS[distill.weighting],
        schedule=schedule,
        mu=distill.mu,
        clip=plan.train.clip,
        autocast=cast,
        fused=plan.train.speed.fused,
    )
    marginal = marginal_of(path, distill.k, schedule)
    return objective, NoisePredictor(student, prediction, schedule, embedding, marginal)


def context_of(model: LatentDiffusion, cast: Callable, input_ids: Tensor) -> Tensor:
    """Token ids [B, L] to the context [B, L, D], float32: what runs under autocast is the text encoder's products."""
    with cast():
        return model.embed_tokens(input_ids).float()


def autocast(precision: str, device: str) -> Callable:
    """Weights, moments and averages that training moves are float32 in each; what a low precision changes is how the
    networks compute. (`models.fast.Typed` networks have a type of their own.)"""
    return nullcontext if precision == "fp32" else partial(torch.autocast, device, PRECISIONS[precision])
