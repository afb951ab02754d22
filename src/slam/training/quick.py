"""The training step as `train.speed` has it computed."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from slam.config import Train
from slam.errors import SlamError
from slam.models.fast import frozen_type, quicken, typed
from slam.models.predictor import NoisePredictor
from slam.training.allocator import keep_memory
from slam.training.graphs import GraphedStep, check_graphs
from slam.training.state import State, Weights
from slam.training.step import Batch, Objective


def quick_step(
    train_step: Callable,
    config: Train,
    objective: Objective,
    accelerator: Accelerator,
    student: nn.Module,
    target: NoisePredictor,
    state: State,
) -> Callable[[list[Batch]], Tensor]:
    """`train_step` as a function of the micro-batches alone. Raises `SlamError` for switches that cannot be here."""
    speed, device = config.speed, accelerator.device
    if speed.graphs:
        check_graphs(device, accelerator.num_processes, config.precision)
    if speed.compile and device.type == "cpu":
        check_compiler()
    if speed.keep_memory and device.type == "cpu":
        keep_memory()
    network, follow = computed_target(target, state.target, config)

    def step(micro_batches: list[Batch]) -> Tensor:
        follow()
        return train_step(objective, accelerator, student, network, state, micro_batches)

    return GraphedStep(step, state.optimizer, device) if speed.graphs else step


def check_compiler() -> None:
    """Raises `SlamError` where torch.compile would find no C++ compiler, which a CPU needs."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise SlamError(
            f"train.speed.compile = true needs a C++ compiler on a CPU, and {compiler} is not found: install one (CXX "
            "may name it), or set it to false"
        )


def computed_target(target: NoisePredictor, weights: Weights, config: Train) -> tuple[nn.Module, Callable[[], None]]:
    """The target network in the type that it computes in, and a function that brings it to what `weights` hold now.

    `weights`, the average itself, stay float32: at mu = 0.95 a bfloat16 average would lose what a step adds.
    """
    dtype = frozen_type(config.speed, config.precision)
    if dtype == torch.float32:
        quicken(target.unet, config.speed)
        return target, lambda: None
    network = copy.deepcopy(target)
    nn.Module.to(network.unet, dtype)
    own = dict(network.unet.named_parameters())
    pairs = [own[name] for name in weights], list(weights.values())
    network.unet = typed(quicken(network.unet, config.speed))

    @torch.no_grad()
    def follow() -> None:
        torch._foreach_copy_(*pairs)

    return network, follow
