"""A text-to-image latent diffusion model as diffusers stores it: the teacher, and the exported student.

B batch, C h w latent, H W pixels (H = 8 h for Stable Diffusion, 4 h for the tiny teacher), L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from slam.errors import SlamError

PARTS = {
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "tokenizer": CLIPTokenizer,
    "unet": UNet2DConditionModel,
    "scheduler": DDIMScheduler,
}
LAYOUT = torch.channels_last  # of every network in memory; files hold contiguous tensors


@dataclass(frozen=True)
class LatentDiffusion:
    """The parts that were asked for; the others are None."""

    name: str  # folder or hub id
    vae: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    unet: Any = None
    scheduler: Any = None  # only its config is used: betas, prediction type
    few_step: bool = False  # the folder's own scheduler is LCM's: it was distilled

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Token ids int64 [B, L], padded and cut to the length that the text encoder takes."""
        return self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """Token ids [B, L] to the U-Net's context [B, L, D]."""
        return self.text_encoder(input_ids.to(self.text_encoder.device))[0]

    def embed(self, captions: Sequence[str]) -> Tensor:
        return self.embed_tokens(self.tokenize(captions))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [-1, 1] to scaled latents [B, C, h, w]: the posterior's mean."""
        return self.posterior(pixels)[0]

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [B, 3, H, W] in [-1, 1] to the mean and the standard deviation of scaled latents [B, C, h, w]."""
        normal = self.vae.encode(pixels).latent_dist
        return normal.mean * self.vae.config.scaling_factor, normal.std * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] to pixels uint8 [B, 3, H, W]."""
        pixels = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)

    @property
    def told_w(self) -> bool:
        """Whether the U-Net has an input for the guidance scale, as LCM's w-conditioned students have."""
        return self.unet.config.time_cond_proj_dim is not None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h, w as the U-Net was trained for."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side


def load(
    name: str | Path, parts: Sequence[str] = tuple(PARTS), dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LatentDiffusion:
    """Load `parts` of a diffusers folder or hub id for inference: eval mode, no gradients.

    Raises `SlamError` when the folder is not one, or lacks a part.
    """
    name = str(name)
    disable_progress_bar()  # it would draw one bar for each part
    local = Path(name).is_dir()
    if local:
        missing = [part for part in parts if not (Path(name) / part).is_dir()]
        if missing:
            raise SlamError(
                f"{name} is not a whole diffusers folder: expected {', '.join(parts)}, found no {', '.join(missing)}"
            )
    loaded: dict[str, Any] = {}
    for part in parts:
        kwargs = {} if part in ("tokenizer", "scheduler") else {"torch_dtype": dtype, "output_loading_info": True}
        try:
            model = PARTS[part].from_pretrained(name, subfolder=part, **kwargs)
            if part == "scheduler":
                own = PARTS[part].load_config(name, subfolder=part)
                loaded["few_step"] = own.get("_class_name") == "LCMScheduler"
        except (OSError, ValueError) as error:
            where = f"{name}/{part} cannot be read" if local else f"{name!r} is no folder here, nor a reachable hub id"
            raise SlamError(f"{where}: {str(error).splitlines()[0]}") from None
        if kwargs:
            model, found = model
            if missing := sorted(found["missing_keys"]):  # diffusers would leave them without a value
                raise SlamError(
                    f"{name}/{part}: the weights lack {missing[0]} and {len(missing) - 1} more; get it whole"
                )
        # channels_last: convolutions then need no reordering, on the CPU and on tensor cores
        loaded[part] = model.to(device, memory_format=LAYOUT).eval().requires_grad_(False) if kwargs else model
    return LatentDiffusion(name, **loaded)
