"""LoRA adapters of a few-step student, kept alone, on the model that they were made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from slam.errors import SlamError
from slam.models.diffusion import LAYOUT, LatentDiffusion

LORA_FILE = "pytorch_lora_weights.safetensors"  # as diffusers' save_lora_weights names it


def with_adapters(base: LatentDiffusion, folder: Path) -> LatentDiffusion:
    """`base` with the adapters in `folder` merged into its U-Net: a few-step student.

    Raises `SlamError` when they fit no layer of it, or the file is broken.
    """
    unet = base.unet
    try:
        unet.load_lora_adapter(str(folder), weight_name=LORA_FILE, prefix="unet")
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise SlamError(
            f"{folder / LORA_FILE}: expected LoRA adapters for {base.name}, found {str(error).splitlines()[0]}"
        ) from None
    if not getattr(unet, "peft_config", None):  # diffusers only warns when no key is the U-Net's
        raise SlamError(f"{folder / LORA_FILE}: expected LoRA adapters for the U-Net of {base.name}, found none")
    unet.fuse_lora()
    unet.unload_lora()
    unet = unet.to(memory_format=LAYOUT).eval().requires_grad_(False)
    return replace(base, name=str(folder), unet=unet, few_step=True)
