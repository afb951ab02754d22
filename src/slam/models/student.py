"""The student: the teacher's U-Net, all of it trained or adapters on it, with an input for gamma or w if told."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor

from slam.config import Lora
from slam.errors import SlamError
from slam.models.diffusion import LAYOUT
from slam.models.embedding import FEATURES, PROJECTION


def make_student(
    teacher: UNet2DConditionModel, embedding: str = "none", lora: Lora | None = None, seed: int = 0
) -> UNet2DConditionModel:
    """A trainable copy of the teacher; with an embedding it has one more, zero-initialised, projection.

    At initialisation it equals the teacher bit for bit, whatever gamma or w; adapters are random in one factor, by
    `seed`, and zero in the other. Raises `SlamError` for a teacher that is
    itself told something, and for adapters that fit no layer of it.
    """
    if teacher.config.time_cond_proj_dim is not None:
        raise SlamError("the teacher's U-Net has time_cond_proj_dim: expected a plain one, not a student told w")
    if embedding == "none":
        student = copy.deepcopy(teacher).train().requires_grad_(lora is None)
    else:
        student = UNet2DConditionModel.from_config({**teacher.config, "time_cond_proj_dim": FEATURES})
        missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
        assert (missing, unexpected) == ([PROJECTION], []), (missing, unexpected)
        torch.nn.init.zeros_(student.time_embedding.cond_proj.weight)
        student = student.to(teacher.device, memory_format=LAYOUT).train().requires_grad_(True)
    if lora:
        add_adapters(student, lora, seed)
    return student


def add_adapters(unet: UNet2DConditionModel, lora: Lora, seed: int) -> None:
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            unet.add_adapter(config)
        except ValueError as error:
            raise SlamError(f"train.lora.targets: {str(error).splitlines()[0]}") from None


def trained(student: UNet2DConditionModel) -> dict[str, Tensor]:
    """The parameters that training moves, by name."""
    return {name: value for name, value in student.named_parameters() if value.requires_grad}


def load_weights(unet: UNet2DConditionModel, weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """Put `weights` in the place of the parameters `names`. Raises `SlamError` unless they are exactly those."""
    fill({name: value for name, value in unet.named_parameters() if name in set(names)}, weights)


def fill(own: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Copy `weights` into `own`. Raises `SlamError` unless names and shapes are the same."""
    expected = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        name, shape = sorted(set(expected.items()) ^ set(found.items()))[0]
        raise SlamError(
            f"these weights are not the student's of this teacher and configuration: first at {name} {shape}"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
