"""Pictures from prompts by a diffusers folder: what `slam generate` and the registered model do, alike.

It knows torch and diffusers alone, nothing of slam: a copy goes with every registered model (mlflow/pyfunc.py).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

STEPS = 50  # at most: the grid that students learn on
PICTURES = 64  # at most in one call: they are drawn as one batch
GRID = 8  # pixels; a picture's sides are multiples of it
SCALE = 2  # a side may be this many times the trained one, or one over it


class WrongRequestError(ValueError):
    """The request cannot be drawn; the message says what was expected."""


class Painter:
    """A loaded pipeline. Raises OSError or ValueError if `folder` holds none."""

    def __init__(self, folder: str | Path) -> None:
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self.pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None, use_safetensors=True)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        self.one_at_a_time = threading.Lock()  # a pipeline's scheduler counts its steps; a server has several threads

    @property
    def told_guidance(self) -> bool:
        """Whether the U-Net has an input for the guidance scale, as LCM's w-conditioned students have."""
        return self.pipeline.unet.config.time_cond_proj_dim is not None

    @property
    def side(self) -> int:
        """Pixels, as the model was trained."""
        return self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor

    def draw(
        self,
        prompts: Sequence[str],
        *,
        steps: int = 4,
        seed: int = 0,
        guidance: float | None = None,
        height: int | None = None,
        width: int | None = None,
        images: int = 1,
    ) -> list[Image.Image]:
        """`images` pictures of the first prompt, then of the next; RGB. None: as the model was trained.

        Picture i begins with the noise of picture i of `seed` in an evaluation, and so depends on (prompt, seed, i).
        Raises `WrongRequestError`; RuntimeError when a picture is blank, as of weights that are not finite.
        """
        height, width = height or self.side, width or self.side
        self._check(prompts, steps, seed, guidance, height, width, images)
        repeated = [prompt for prompt in prompts for _ in range(images)]
        with self.one_at_a_time:
            pictures = self.pipeline(
                repeated,
                num_inference_steps=steps,
                guidance_scale=guidance or 1.0,
                height=height,
                width=width,
                generator=[stream(seed, index) for index in range(len(repeated))],
            ).images
        for index, picture in enumerate(pictures):
            if all(low == high for low, high in picture.getextrema()):
                raise RuntimeError(f"picture {index} is blank: the weights are broken, or do not fit their config")
        return pictures

    def _check(
        self,
        prompts: Sequence[str],
        steps: int,
        seed: int,
        guidance: float | None,
        height: int,
        width: int,
        images: int,
    ) -> None:
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or not prompt.strip():
                raise WrongRequestError(f"prompt {index} is empty: say what to draw")
        _within("steps", steps, 1, STEPS)
        _within("seed", seed, 0, 2**63 - 1)
        _within("images", images, 1, PICTURES)
        _within("prompts x images", len(prompts) * images, 1, PICTURES)
        for name, pixels in {"height": height, "width": width}.items():
            _within(name, pixels, self.side // SCALE, self.side * SCALE)
            if pixels % GRID:
                raise WrongRequestError(f"{name} = {pixels}: expected a multiple of {GRID}")
        if guidance is None and self.told_guidance:
            raise WrongRequestError("guidance: this student is told its guidance scale; give one, such as 5")
        if guidance is not None and not 1 <= guidance <= 100:  # false for NaN too
            raise WrongRequestError(f"guidance = {guidance:g}: expected 1 to 100")


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise WrongRequestError(f"{name} = {value}: expected {low} to {high}")


def stream(seed: int, index: int) -> torch.Generator:
    """The noise of picture `index`. Hashed, because torch's CPU generator keeps only the low 32 bits of its seed."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))
