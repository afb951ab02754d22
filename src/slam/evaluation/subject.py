"""What is measured: any diffusers folder or hub id, or a folder of LoRA adapters on the profile's teacher."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from slam.config import Evaluate
from slam.errors import SlamError
from slam.evaluation.rows import Row, distilled, training_free
from slam.models.adapters import LORA_FILE, with_adapters
from slam.models.diffusion import LatentDiffusion, load
from slam.models.precision import PRECISIONS


class Subject(NamedTuple):
    name: str  # a folder or hub id
    base: str | None = None  # of adapters: the diffusers folder or hub id that they were made for
    asked: str | None = None  # as its user named it, such as models:/slam@champion, if `name` is only where it lies

    def load(self, precision: str, device: str) -> LatentDiffusion:
        """Raises `SlamError` when it is no model that this package can draw with."""
        folder, dtype = Path(self.name), PRECISIONS[precision]
        if (folder / LORA_FILE).is_file():
            if self.base is None:
                raise SlamError(f"{folder} holds LoRA adapters: the model that they were made for must be named too")
            return with_adapters(load(self.base, dtype=dtype, device=device), folder)
        if not folder.exists() and (folder.is_absolute() or self.name.count("/") > 1 or self.name.startswith(".")):
            raise SlamError(f"{folder} does not exist: expected a diffusers folder, a hub id or LoRA adapters")
        if folder.exists() and not (folder / "model_index.json").is_file():
            raise SlamError(
                f"{folder} is no model: expected a diffusers folder (model_index.json) or LoRA adapters ({LORA_FILE})"
            )
        model = load(self.name, dtype=dtype, device=device)
        if model.unet.config.addition_embed_type is not None:
            raise SlamError(
                f"{self.name}: expected a model of Stable Diffusion 1's or 2's form, found a U-Net that is also told"
                f" {model.unet.config.addition_embed_type} (Stable Diffusion XL's form)"
            )
        return model


def rows_of(config: Evaluate, label: str, model: LatentDiffusion) -> list[Row]:
    """How a model is measured: one that was distilled (its scheduler is LCM's) at config.steps with the LCM sampler,
    any other at config.teacher_steps and by the training-free samplers."""
    if is_distilled(model):
        return distilled(config, label, config.guidance if model.told_w else 1.0)
    return training_free(config, label)


def is_distilled(model: LatentDiffusion) -> bool:
    return model.told_w or model.few_step
