"""The trained network as a plain diffusers folder, with exactly the teacher's parameters."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from slam.errors import SlamError
from slam.files import whole_folder
from slam.models.diffusion import load
from slam.models.student import GAMMA_KEY


def export(teacher: str | Path, weights: dict[str, Tensor], out: Path) -> None:
    """Write the U-Net `weights` with the teacher's other parts and an `LCMScheduler` to the folder `out`.

    The gamma projection is left out: its input is exactly zero at gamma = 1, where a student samples. Raises
    `SlamError` if the other keys and shapes are not the teacher's.
    """
    model = load(teacher)
    unet = UNet2DConditionModel.from_config(model.unet.config)
    plain = {name: value for name, value in weights.items() if name != GAMMA_KEY}
    expected = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in plain.items()}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[0]
        raise SlamError(
            f"the student does not have the parameters of the teacher {teacher}: first at {odd[0]} {odd[1]}"
        )
    unet.load_state_dict(plain)
    scheduler = LCMScheduler.from_config(
        {key: value for key, value in model.scheduler.config.items() if not key.startswith("_")}
    )
    pipeline = StableDiffusionPipeline(
        vae=model.vae.to(memory_format=torch.contiguous_format),  # as safetensors asks
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with whole_folder(out) as partial:
        pipeline.save_pretrained(partial)
