"""The trained network as a plain diffusers folder, with exactly the teacher's parameters unless it is told w."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict

from slam.files import whole_folder
from slam.models.diffusion import LatentDiffusion

LORA = "lora"  # folder of the adapters alone, in the exported folder


def export(model: LatentDiffusion, out: Path) -> None:
    """Write `model`, whose U-Net is the student, with an `LCMScheduler` to the folder `out`.

    Of adapters, the folder holds the network with them merged in, and them alone as `lora/`, which
    `load_lora_weights` puts on the teacher's own pipeline.
    """
    scheduler = LCMScheduler.from_config(
        {key: value for key, value in model.scheduler.config.items() if not key.startswith("_")}
    )
    student = model.unet
    adapted = hasattr(student, "peft_config")
    pipeline = StableDiffusionPipeline(
        vae=in_files(model.vae),
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=in_files(merged(student) if adapted else student),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with whole_folder(out) as partial:
        pipeline.save_pretrained(partial)
        if adapted:
            StableDiffusionPipeline.save_lora_weights(
                partial / LORA,
                {key: value.contiguous() for key, value in get_peft_model_state_dict(student).items()},
                unet_lora_adapter_metadata=student.peft_config["default"].to_dict(),
            )


def in_files(module: torch.nn.Module) -> torch.nn.Module:
    """A copy with contiguous parameters, as safetensors asks."""
    return copy.deepcopy(module).to(memory_format=torch.contiguous_format)


def merged(student: UNet2DConditionModel) -> UNet2DConditionModel:
    plain = copy.deepcopy(student)
    plain.fuse_lora()
    plain.unload_lora()
    return plain
